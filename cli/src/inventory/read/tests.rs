use super::*;

const YAML: &str = "\
accounts:
  - account: 012345678901
    name: shop-prod
    ou: Workloads/Production
    owner: shop
    environment: production
    criticality: high
    regions: [eu-west-1, us-east-1]
  - {account: '111122223333', name: sandbox, regions: eu-west-1}
functions:
  - account: 012345678901
    region: eu-west-1
    name: checkout-*
    owner: payments
";

const CSV: &str = "\
account,name,ou,owner,environment,criticality,regions,function,region
012345678901,shop-prod,Workloads/Production,shop,production,high,eu-west-1 us-east-1,,
111122223333,sandbox,,,,,eu-west-1,,
012345678901,,,payments,,,,checkout-*,eu-west-1
,,,,,,,,
";

fn good(path: &str, text: &str) -> Inventory {
    parse(path, text.as_bytes()).unwrap_or_else(|e| panic!("{path}\n{e}"))
}

#[test]
fn all_forms_say_the_same() {
    let of_yaml = good("i.yaml", YAML);
    assert_eq!(of_yaml.accounts().len(), 2);
    let account = of_yaml.account("012345678901").unwrap();
    assert_eq!(account.regions, ["eu-west-1", "us-east-1"]);
    let function = of_yaml.function("012345678901", "eu-west-1", "checkout-card");
    assert_eq!(function.unwrap().owner, "payments");
    let semicolons = "\u{feff}".to_owned() + &CSV.replace(',', ";");
    for text in [CSV, &semicolons, &CSV.replace('\n', "\r\n")] {
        let of_csv = good("i.CSV", text);
        assert_eq!(of_csv.accounts(), of_yaml.accounts());
        assert_eq!(of_csv.functions(), of_yaml.functions());
    }
}

#[test]
fn what_aws_prints() {
    let text = r#"{
    "Accounts": [
        {"Id": "012345678901", "Arn": "arn:aws:organizations::1:account/o-1/012345678901", "Email": "a@example.com",
         "Name": "shop-prod", "Status": "ACTIVE", "JoinedMethod": "CREATED", "JoinedTimestamp": "2024-01-01T00:00:00Z"},
        {"Id": "111122223333", "Name": "old", "Status": "ACTIVE", "State": "CLOSED"},
        {"Id": "444455556666", "Name": "older", "Status": "SUSPENDED"}
    ]
}"#;
    let inventory = good("accounts.json", text);
    let shown = inventory.accounts().iter();
    let shown: Vec<_> = shown.map(|a| (a.name.as_str(), a.suspended)).collect();
    assert_eq!(
        shown,
        [("shop-prod", false), ("old", true), ("older", true)]
    );
}

/// The place of every mistake, and words of each.
fn bad(path: &str, text: &str, expected: &[(&str, &str)]) {
    let problems = parse(path, text.as_bytes()).unwrap_err().0;
    let shown: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(shown.len(), expected.len(), "{shown:#?}");
    for (shown, (place, words)) in shown.iter().zip(expected) {
        let place = format!("--> {path}{place}\n");
        assert!(
            shown.contains(&place) && shown.contains(words),
            "{shown}\n{place}{words}"
        );
    }
}

#[test]
fn every_mistake_of_yaml_has_its_place() {
    let change = |from: &str, to: &str, place: &str, words: &str| {
        assert!(YAML.contains(from));
        bad("i.yaml", &YAML.replacen(from, to, 1), &[(place, words)]);
    };
    change("accounts:", "account:", ":1:1", "did you mean `accounts`?");
    change(
        "    owner: shop",
        "    ownr: shop",
        ":5:5",
        "did you mean `owner`?",
    );
    change("    region: eu", "    ou: eu", ":12:5", "unknown key `ou`");
    change(
        "012345678901",
        "12345678901",
        ":2:14",
        "was it 012345678901?",
    );
    change("012345678901", "1.23456E+10", ":2:14", "digits are lost");
    change(
        "'111122223333'",
        "1111-2222-3333",
        ":9:15",
        "without dashes and spaces: 111122223333",
    );
    change("'111122223333'", "shop", ":9:15", "is no account");
    change(
        "'111122223333'",
        "012345678901",
        ":9:5",
        "stands here and on line 2",
    );
    change(
        "regions: eu-west-1}",
        "regions: Ireland}",
        ":9:55",
        "is no region",
    );
    change(
        "region: eu-west-1",
        "region: eu_west",
        ":12:13",
        "is no region",
    );
    change("checkout-*", "arn:aws:lambda:x", ":13:11", "the name alone");
    change(
        "    name: checkout-*\n",
        "",
        ":11:5",
        "a function has a `name`",
    );
    change(
        "[eu-west-1, us-east-1]",
        "{a: b}",
        ":8:14",
        "a map instead of a text",
    );
    change(
        "- account: 012345678901\n    name",
        "- name",
        ":2:5",
        "there is no `account`",
    );
    change("shop-prod", "[", ":4:5", "not valid yaml");
    let long = "x".repeat(MAX_VALUE + 1);
    change("shop-prod", &long, ":3:11", "more than 256 bytes");
    let twice =
        format!("{YAML}  - {{account: 012345678901, name: 'checkout-*', region: eu-west-1}}\n");
    bad(
        "i.yaml",
        &twice,
        &[(":15:5", "function `checkout-*` of account")],
    );
    bad("i.yaml", "", &[("", "0 documents")]);
    bad(
        "i.yaml",
        "accounts: []\n",
        &[("", "no account and no function")],
    );
    bad(
        "i.yaml",
        "accounts: 7\n",
        &[(":1:11", "a number instead of a list")],
    );
    bad(
        "i.yaml",
        "- a\n",
        &[(":1:1", "a list instead of `accounts:`")],
    );
    bad("i.txt", YAML, &[("", "called .yaml, .csv")]);
    // All at once, in the order of the file.
    let many = YAML
        .replace("owner: shop", "ownr: shop")
        .replace("'111122223333'", "7");
    bad("i.yaml", &many, &[(":5:5", "ownr"), (":9:15", "1 digits")]);
}

#[test]
fn every_mistake_of_csv_has_its_line() {
    let change = |from: &str, to: &str, place: &str, words: &str| {
        assert!(CSV.contains(from));
        bad("i.csv", &CSV.replacen(from, to, 1), &[(place, words)]);
    };
    change("owner", "ownr", ":1", "did you mean `owner`?");
    change("ou,owner", "ou,ou", ":1", "column `ou` stands twice");
    change(
        "\n111122223333",
        "\n1111222233",
        ":3",
        "was it 001111222233?",
    );
    change("sandbox,", "sandbox,,", ":3", "10 columns instead of 9");
    change(
        "\n111122223333",
        "\n012345678901",
        ":3",
        "stands here and on line 2",
    );
    change(
        "checkout-*,eu-west-1",
        "checkout-*,Ireland",
        ":4",
        "is no region",
    );
    change(
        "012345678901,,,pay",
        "012345678901,x,,pay",
        ":4",
        "a function has no `name`",
    );
    change(
        "012345678901,,,pay",
        "012345678901,,x,pay",
        ":4",
        "a function has no `ou`",
    );
    change(
        "sandbox,,,,,eu-west-1,,",
        "sandbox,,,,,,,eu-west-1",
        ":3",
        "an account has no `region`",
    );
    bad(
        "i.csv",
        "name,owner\na,b\n",
        &[(":1", "there is no column `account`")],
    );
    let numbers = CSV.replacen("account,", "number,", 1);
    let both = [
        (":1", "unknown key `number`"),
        (":1", "no column `account`"),
    ];
    bad("i.csv", &numbers, &both);
    bad("i.csv", "account\n", &[("", "no account and no function")]);
    let latin = parse("i.csv", b"account,name\n111122223333,K\xf6ln\n").unwrap_err();
    assert!(latin.to_string().contains("line 2 is not UTF-8"), "{latin}");
}

#[test]
fn every_mistake_of_json_is_said() {
    let hint = "list-accounts";
    bad("a.json", "{", &[(":1:1", hint)]);
    bad("a.json", r#"{"accounts": []}"#, &[(":1:16", hint)]);
    bad(
        "a.json",
        "{\"Accounts\": [\n {\"Name\": \"x\"}]}",
        &[(":2", "missing field `Id`")],
    );
    bad(
        "a.json",
        "{\"Accounts\": [\n {\"Id\": \"12\"}]}",
        &[(":2", "2 digits")],
    );
    let cut = r#"{"Accounts": [{"Id": "111122223333"}], "NextToken": "x"}"#;
    bad("a.json", cut, &[("", "the list is cut")]);
}
