//! The kinds of ordinary calls, as tables: who does what, the most frequent first.
//!
//! Parameters are JSON in which words in angle brackets stand for things of the account: `<bucket>`,
//! `<function>`, `<hex>`. `ordinary` fills them in and decides who calls when.

/// A kind of call: service, name, `requestParameters` and `responseElements` as templates.
pub(crate) type Kind = (&'static str, &'static str, &'static str, &'static str);

const OBJECT: &str =
    r#"{"bucketName":"<bucket>","Host":"<bucket>.s3.<region>.amazonaws.com","key":"<object>"}"#;
const TABLE: &str = r#"{"tableName":"<table>","key":{"parcelId":"<hex>"}}"#;

/// What applications do.
pub(crate) const APPLICATION: [Kind; 21] = [
    (
        "kms",
        "Decrypt",
        r#"{"encryptionAlgorithm":"SYMMETRIC_DEFAULT","encryptionContext":{"aws:s3:arn":"arn:aws:s3:::<bucket>"}}"#,
        "null",
    ),
    ("s3", "GetObject", OBJECT, "null"),
    (
        "s3",
        "PutObject",
        OBJECT,
        r#"{"x-amz-server-side-encryption":"aws:kms"}"#,
    ),
    ("dynamodb", "GetItem", TABLE, "null"),
    ("dynamodb", "PutItem", TABLE, "null"),
    (
        "kms",
        "GenerateDataKey",
        r#"{"keyId":"arn:aws:kms:<region>:<account>:key/<key>","keySpec":"AES_256","encryptionContext":{"aws:s3:arn":"arn:aws:s3:::<bucket>"}}"#,
        "null",
    ),
    ("dynamodb", "UpdateItem", TABLE, "null"),
    (
        "dynamodb",
        "Query",
        r#"{"tableName":"<table>","indexName":"by-depot"}"#,
        "null",
    ),
    (
        "sqs",
        "ReceiveMessage",
        r#"{"queueUrl":"https://sqs.<region>.amazonaws.com/<account>/<queue>","maxNumberOfMessages":10,"waitTimeSeconds":20}"#,
        "null",
    ),
    (
        "sqs",
        "DeleteMessage",
        r#"{"queueUrl":"https://sqs.<region>.amazonaws.com/<account>/<queue>"}"#,
        "null",
    ),
    ("s3", "HeadObject", OBJECT, "null"),
    (
        "sqs",
        "SendMessage",
        r#"{"queueUrl":"https://sqs.<region>.amazonaws.com/<account>/<queue>"}"#,
        r#"{"messageId":"<uuid>"}"#,
    ),
    (
        "sns",
        "Publish",
        r#"{"topicArn":"arn:aws:sns:<region>:<account>:parcel-events"}"#,
        r#"{"messageId":"<uuid>"}"#,
    ),
    (
        "states",
        "StartExecution",
        r#"{"stateMachineArn":"arn:aws:states:<region>:<account>:stateMachine:returns","name":"<uuid>"}"#,
        r#"{"executionArn":"arn:aws:states:<region>:<account>:execution:returns:<uuid>"}"#,
    ),
    (
        "dynamodb",
        "BatchWriteItem",
        r#"{"requestItems":{"<table>":[]}}"#,
        "null",
    ),
    (
        "events",
        "PutEvents",
        r#"{"entries":[{"source":"freight.<stage>","detailType":"ParcelScanned"}]}"#,
        r#"{"failedEntryCount":0}"#,
    ),
    (
        "monitoring",
        "PutMetricData",
        r#"{"namespace":"Freight/<stage>"}"#,
        "null",
    ),
    (
        "ssm",
        "GetParameter",
        r#"{"name":"/<stage>/feature-flags","withDecryption":false}"#,
        "null",
    ),
    (
        "sqs",
        "ChangeMessageVisibility",
        r#"{"queueUrl":"https://sqs.<region>.amazonaws.com/<account>/<queue>","visibilityTimeout":60}"#,
        "null",
    ),
    (
        "ses",
        "SendEmail",
        r#"{"source":"no-reply@lumen-freight.example","destination":{"toAddresses":["HIDDEN_DUE_TO_SECURITY_REASONS"]}}"#,
        r#"{"messageId":"<hex>"}"#,
    ),
    (
        "secretsmanager",
        "GetSecretValue",
        r#"{"secretId":"arn:aws:secretsmanager:<region>:<account>:secret:<secret>","versionStage":"AWSCURRENT"}"#,
        "null",
    ),
];

/// What AWS Config does.
pub(crate) const CONFIG: [Kind; 6] = [
    (
        "ec2",
        "DescribeVolumes",
        r#"{"volumeSet":{},"filterSet":{}}"#,
        "null",
    ),
    (
        "lambda",
        "ListTags20170331",
        r#"{"resource":"arn:aws:lambda:<region>:<account>:function:<function>"}"#,
        "null",
    ),
    (
        "s3",
        "GetBucketEncryption",
        r#"{"bucketName":"<bucket>","encryption":"","Host":"<bucket>.s3.<region>.amazonaws.com"}"#,
        "null",
    ),
    (
        "config",
        "PutEvaluations",
        r#"{"evaluations":[{"complianceResourceType":"AWS::S3::Bucket","complianceResourceId":"<bucket>","complianceType":"COMPLIANT"}],"testMode":false}"#,
        r#"{"failedEvaluations":[]}"#,
    ),
    (
        "rds",
        "DescribeDBInstances",
        r#"{"dBInstanceIdentifier":"freight-<stage>"}"#,
        "null",
    ),
    (
        "elasticloadbalancing",
        "DescribeLoadBalancers",
        r#"{"loadBalancerArns":["arn:aws:elasticloadbalancing:<region>:<account>:loadbalancer/app/depot/<hex>"]}"#,
        "null",
    ),
];
/// What EC2 Auto Scaling does.
pub(crate) const AUTOSCALING: [Kind; 6] = [
    (
        "ec2",
        "DescribeInstances",
        r#"{"instancesSet":{"items":[{"instanceId":"<instance>"}]},"filterSet":{}}"#,
        "null",
    ),
    (
        "ec2",
        "DescribeInstanceStatus",
        r#"{"instancesSet":{"items":[{"instanceId":"<instance>"}]},"includeAllInstances":true}"#,
        "null",
    ),
    (
        "elasticloadbalancing",
        "DescribeTargetHealth",
        r#"{"targetGroupArn":"arn:aws:elasticloadbalancing:<region>:<account>:targetgroup/depot/<hex>"}"#,
        "null",
    ),
    (
        "elasticloadbalancing",
        "RegisterTargets",
        r#"{"targetGroupArn":"arn:aws:elasticloadbalancing:<region>:<account>:targetgroup/depot/<hex>","targets":[{"id":"<instance>"}]}"#,
        "null",
    ),
    (
        "ec2",
        "CreateTags",
        r#"{"resourcesSet":{"items":[{"resourceId":"<instance>"}]},"tagSet":{"items":[{"key":"aws:autoscaling:groupName","value":"depot-<stage>"}]}}"#,
        r#"{"requestId":"<uuid>","_return":true}"#,
    ),
    (
        "ec2",
        "RunInstances",
        r#"{"instancesSet":{"items":[{"minCount":1,"maxCount":1}]},"launchTemplate":{"launchTemplateId":"lt-0a1b2c3d4e5f60718","version":"12"},"clientToken":"fleet-<uuid>"}"#,
        r#"{"requestId":"<uuid>","ownerId":"<account>","instancesSet":{"items":[{"instanceId":"<instance>","instanceType":"m7g.large"}]}}"#,
    ),
];
/// What Security Hub does.
pub(crate) const SECURITYHUB: [Kind; 3] = [
    (
        "config",
        "DescribeConfigRules",
        r#"{"configRuleNames":["securityhub-s3-bucket-level-public-access-prohibited-<hex>"]}"#,
        "null",
    ),
    (
        "config",
        "GetComplianceDetailsByConfigRule",
        r#"{"configRuleName":"securityhub-lambda-inside-vpc-<hex>","limit":100}"#,
        "null",
    ),
    (
        "config",
        "BatchGetResourceConfig",
        r#"{"resourceKeys":[{"resourceType":"AWS::Lambda::Function","resourceId":"<function>"}]}"#,
        "null",
    ),
];
/// What ECS does.
pub(crate) const ECS: [Kind; 5] = [
    (
        "ec2",
        "DescribeNetworkInterfaces",
        r#"{"networkInterfaceIdSet":{"items":[{"networkInterfaceId":"eni-0<hex>"}]},"filterSet":{}}"#,
        "null",
    ),
    (
        "ec2",
        "CreateNetworkInterface",
        r#"{"subnetId":"subnet-0f1e2d3c4b5a69788","description":"arn:aws:ecs:<region>:<account>:attachment/<uuid>","groupSet":{"items":[{"groupId":"sg-0123456789abcdef0"}]}}"#,
        r#"{"requestId":"<uuid>"}"#,
    ),
    (
        "ec2",
        "DeleteNetworkInterface",
        r#"{"networkInterfaceId":"eni-0<hex>"}"#,
        r#"{"requestId":"<uuid>","_return":true}"#,
    ),
    (
        "elasticloadbalancing",
        "DeregisterTargets",
        r#"{"targetGroupArn":"arn:aws:elasticloadbalancing:<region>:<account>:targetgroup/depot/<hex>","targets":[{"id":"10.20.4.17","port":8080}]}"#,
        "null",
    ),
    (
        "servicediscovery",
        "UpdateInstanceCustomHealthStatus",
        r#"{"serviceId":"srv-<hex>","instanceId":"<uuid>","status":"HEALTHY"}"#,
        "null",
    ),
];
/// What AWS services do under no role at all.
pub(crate) const ASSUME: [(&str, &str); 4] = [
    ("lambda", "<function>-role"),
    ("ecs-tasks", "billing-task-role"),
    ("ec2", "depot-gateway-role"),
    ("states", "returns-workflow-role"),
];

/// What people do on the console and the command line.
pub(crate) const PERSON: [Kind; 24] = [
    (
        "logs",
        "FilterLogEvents",
        r#"{"logGroupName":"/aws/lambda/<function>","startTime":1,"filterPattern":"ERROR"}"#,
        "null",
    ),
    (
        "monitoring",
        "GetMetricData",
        r#"{"maxDatapoints":500,"scanBy":"TimestampDescending"}"#,
        "null",
    ),
    (
        "logs",
        "StartQuery",
        r#"{"logGroupNames":["/aws/lambda/<function>"],"queryString":"fields @timestamp, @message | sort @timestamp desc","limit":1000}"#,
        r#"{"queryId":"<uuid>"}"#,
    ),
    ("logs", "GetQueryResults", r#"{"queryId":"<uuid>"}"#, "null"),
    (
        "monitoring",
        "DescribeAlarms",
        r#"{"maxRecords":100}"#,
        "null",
    ),
    (
        "lambda",
        "GetFunction20150331v2",
        r#"{"functionName":"<function>"}"#,
        "null",
    ),
    (
        "cloudformation",
        "DescribeStackEvents",
        r#"{"stackName":"freight-<stage>"}"#,
        "null",
    ),
    (
        "dynamodb",
        "DescribeTable",
        r#"{"tableName":"<table>"}"#,
        "null",
    ),
    (
        "states",
        "DescribeExecution",
        r#"{"executionArn":"arn:aws:states:<region>:<account>:execution:returns:<uuid>"}"#,
        "null",
    ),
    (
        "ecs",
        "DescribeServices",
        r#"{"cluster":"freight-<stage>","services":["billing"]}"#,
        "null",
    ),
    (
        "sqs",
        "GetQueueAttributes",
        r#"{"queueUrl":"https://sqs.<region>.amazonaws.com/<account>/<queue>","attributeNames":["All"]}"#,
        "null",
    ),
    (
        "ecs",
        "DescribeTasks",
        r#"{"cluster":"freight-<stage>","tasks":["<hex>"]}"#,
        "null",
    ),
    (
        "ec2",
        "DescribeInstances",
        r#"{"instancesSet":{},"filterSet":{"items":[{"name":"tag:stage","valueSet":{"items":[{"value":"<stage>"}]}}]}}"#,
        "null",
    ),
    (
        "cloudfront",
        "GetDistribution2020_05_31",
        r#"{"id":"E1PA6795UKMFR9"}"#,
        "null",
    ),
    (
        "rds",
        "DescribeDBClusters",
        r#"{"dBClusterIdentifier":"freight-<stage>"}"#,
        "null",
    ),
    (
        "ecr",
        "DescribeImages",
        r#"{"repositoryName":"freight/billing","maxResults":50}"#,
        "null",
    ),
    (
        "athena",
        "StartQueryExecution",
        r#"{"queryString":"HIDDEN_DUE_TO_SECURITY_REASONS","workGroup":"analysts"}"#,
        r#"{"queryExecutionId":"<uuid>"}"#,
    ),
    (
        "athena",
        "GetQueryExecution",
        r#"{"queryExecutionId":"<uuid>"}"#,
        "null",
    ),
    (
        "health",
        "DescribeEventAggregates",
        r#"{"aggregateField":"eventTypeCategory"}"#,
        "null",
    ),
    (
        "ce",
        "GetCostAndUsage",
        r#"{"granularity":"DAILY","metrics":["UnblendedCost"]}"#,
        "null",
    ),
    (
        "resource-groups",
        "SearchResources",
        r#"{"maxResults":50}"#,
        "null",
    ),
    (
        "codepipeline",
        "GetPipelineState",
        r#"{"name":"freight-<stage>"}"#,
        "null",
    ),
    ("xray", "GetTraceSummaries", r#"{"sampling":false}"#, "null"),
    (
        "logs",
        "PutQueryDefinition",
        r#"{"name":"failed deliveries","queryString":"filter @message like /failed/","logGroupNames":["/aws/lambda/<function>"]}"#,
        r#"{"queryDefinitionId":"<uuid>"}"#,
    ),
];
/// What old IAM users do.
pub(crate) const USER: [Kind; 5] = [
    ("s3", "PutObject", OBJECT, "null"),
    ("s3", "GetObject", OBJECT, "null"),
    (
        "sqs",
        "SendMessage",
        r#"{"queueUrl":"https://sqs.<region>.amazonaws.com/<account>/<queue>"}"#,
        r#"{"messageId":"<uuid>"}"#,
    ),
    (
        "iot",
        "DescribeEndpoint",
        r#"{"endpointType":"iot:Data-ATS"}"#,
        "null",
    ),
    (
        "translate",
        "TranslateText",
        r#"{"sourceLanguageCode":"auto","targetLanguageCode":"en"}"#,
        "null",
    ),
];
