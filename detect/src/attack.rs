//! MITRE ATT&CK and the OWASP Serverless Top 10, as far as tags of rules speak of them.
//!
//! The tactics are those of ATT&CK 18 and 19 together: 19 has split *defense evasion* into *stealth* and *defense
//! impairment*, and public rules speak both. [`TECHNIQUES`] names those that are at home in clouds; one that is not
//! there is taken by its tag. Nothing here knows rules. ATT&CK is a trademark of The MITRE Corporation.

/// What an attacker wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tactic {
    /// `TA0001` and its like.
    pub id: &'static str,
    /// The word in tags.
    pub slug: &'static str,
    /// The name.
    pub name: &'static str,
}

const fn tactic(id: &'static str, slug: &'static str, name: &'static str) -> Tactic {
    Tactic { id, slug, name }
}

/// All tactics, in the order of an attack.
pub const TACTICS: &[Tactic] = &[
    tactic("TA0043", "reconnaissance", "Reconnaissance"),
    tactic("TA0042", "resource-development", "Resource Development"),
    tactic("TA0001", "initial-access", "Initial Access"),
    tactic("TA0002", "execution", "Execution"),
    tactic("TA0003", "persistence", "Persistence"),
    tactic("TA0004", "privilege-escalation", "Privilege Escalation"),
    // Up to version 18; stealth bears its number since.
    tactic("TA0005", "defense-evasion", "Defense Evasion"),
    tactic("TA0005", "stealth", "Stealth"),
    tactic("TA0112", "defense-impairment", "Defense Impairment"),
    tactic("TA0006", "credential-access", "Credential Access"),
    tactic("TA0007", "discovery", "Discovery"),
    tactic("TA0008", "lateral-movement", "Lateral Movement"),
    tactic("TA0009", "collection", "Collection"),
    tactic("TA0011", "command-and-control", "Command and Control"),
    tactic("TA0010", "exfiltration", "Exfiltration"),
    tactic("TA0040", "impact", "Impact"),
];

/// The OWASP Serverless Top 10 by the word in tags, and denial of wallet beside it.
pub const OWASP: &[(&str, &str)] = &[
    ("sl1", "Injection"),
    ("sl2", "Broken authentication"),
    ("sl3", "Sensitive data exposure"),
    ("sl4", "XML external entities"),
    ("sl5", "Broken access control"),
    ("sl6", "Security misconfiguration"),
    ("sl7", "Cross-site scripting"),
    ("sl8", "Insecure deserialization"),
    ("sl9", "Components with known vulnerabilities"),
    ("sl10", "Insufficient logging and monitoring"),
    ("dow", "Denial of wallet and service"),
];

/// A technique that is at home in clouds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Technique {
    /// Its name.
    pub name: &'static str,
    tactics: &'static [&'static str],
}

/// The technique with an id such as `T1110.001`, where it is known.
pub fn technique(id: &str) -> Option<Technique> {
    let at = TECHNIQUES
        .binary_search_by_key(&id, |(known, ..)| known)
        .ok()?;
    let (_, name, tactics) = TECHNIQUES[at];
    Some(Technique { name, tactics })
}

impl Technique {
    /// Does it serve this tactic? The two parts into which defense evasion was split count as it did.
    pub fn serves(&self, tactic: &str) -> bool {
        let tactic = match tactic {
            "stealth" | "defense-impairment" => "defense-evasion",
            other => other,
        };
        self.tactics.contains(&tactic)
    }

    /// The tactics that it serves.
    pub fn tactics(&self) -> &'static [&'static str] {
        self.tactics
    }
}

/// Techniques by id, in order of it, each with the tactics that it serves.
const TECHNIQUES: &[(&str, &str, &[&str])] = &[
    ("T1021", "Remote Services", &["lateral-movement"]),
    ("T1021.004", "SSH", &["lateral-movement"]),
    ("T1021.007", "Cloud Services", &["lateral-movement"]),
    (
        "T1021.008",
        "Direct Cloud VM Connections",
        &["lateral-movement"],
    ),
    (
        "T1037",
        "Boot or Logon Initialization Scripts",
        &["persistence", "privilege-escalation"],
    ),
    ("T1046", "Network Service Discovery", &["discovery"]),
    (
        "T1048",
        "Exfiltration Over Alternative Protocol",
        &["exfiltration"],
    ),
    ("T1059", "Command and Scripting Interpreter", &["execution"]),
    ("T1059.009", "Cloud API", &["execution"]),
    (
        "T1068",
        "Exploitation for Privilege Escalation",
        &["privilege-escalation"],
    ),
    ("T1069", "Permission Groups Discovery", &["discovery"]),
    ("T1069.003", "Cloud Groups", &["discovery"]),
    ("T1070", "Indicator Removal", &["defense-evasion"]),
    ("T1074", "Data Staged", &["collection"]),
    ("T1074.002", "Remote Data Staging", &["collection"]),
    (
        "T1078",
        "Valid Accounts",
        &[
            "defense-evasion",
            "persistence",
            "privilege-escalation",
            "initial-access",
        ],
    ),
    (
        "T1078.001",
        "Default Accounts",
        &[
            "defense-evasion",
            "persistence",
            "privilege-escalation",
            "initial-access",
        ],
    ),
    (
        "T1078.002",
        "Domain Accounts",
        &[
            "defense-evasion",
            "persistence",
            "privilege-escalation",
            "initial-access",
        ],
    ),
    (
        "T1078.004",
        "Cloud Accounts",
        &[
            "defense-evasion",
            "persistence",
            "privilege-escalation",
            "initial-access",
        ],
    ),
    ("T1082", "System Information Discovery", &["discovery"]),
    ("T1083", "File and Directory Discovery", &["discovery"]),
    ("T1087", "Account Discovery", &["discovery"]),
    ("T1087.004", "Cloud Account", &["discovery"]),
    ("T1090", "Proxy", &["command-and-control"]),
    (
        "T1098",
        "Account Manipulation",
        &["persistence", "privilege-escalation"],
    ),
    (
        "T1098.001",
        "Additional Cloud Credentials",
        &["persistence", "privilege-escalation"],
    ),
    (
        "T1098.003",
        "Additional Cloud Roles",
        &["persistence", "privilege-escalation"],
    ),
    (
        "T1098.004",
        "SSH Authorized Keys",
        &["persistence", "privilege-escalation"],
    ),
    ("T1105", "Ingress Tool Transfer", &["command-and-control"]),
    ("T1106", "Native API", &["execution"]),
    ("T1110", "Brute Force", &["credential-access"]),
    ("T1110.001", "Password Guessing", &["credential-access"]),
    ("T1110.002", "Password Cracking", &["credential-access"]),
    ("T1110.003", "Password Spraying", &["credential-access"]),
    ("T1110.004", "Credential Stuffing", &["credential-access"]),
    ("T1119", "Automated Collection", &["collection"]),
    (
        "T1133",
        "External Remote Services",
        &["persistence", "initial-access"],
    ),
    (
        "T1134",
        "Access Token Manipulation",
        &["defense-evasion", "privilege-escalation"],
    ),
    ("T1136", "Create Account", &["persistence"]),
    ("T1136.003", "Cloud Account", &["persistence"]),
    (
        "T1190",
        "Exploit Public-Facing Application",
        &["initial-access"],
    ),
    ("T1195", "Supply Chain Compromise", &["initial-access"]),
    ("T1199", "Trusted Relationship", &["initial-access"]),
    ("T1201", "Password Policy Discovery", &["discovery"]),
    ("T1204", "User Execution", &["execution"]),
    ("T1204.003", "Malicious Image", &["execution"]),
    (
        "T1213",
        "Data from Information Repositories",
        &["collection"],
    ),
    (
        "T1484",
        "Domain or Tenant Policy Modification",
        &["defense-evasion", "privilege-escalation"],
    ),
    (
        "T1484.002",
        "Trust Modification",
        &["defense-evasion", "privilege-escalation"],
    ),
    ("T1485", "Data Destruction", &["impact"]),
    ("T1485.001", "Lifecycle-Triggered Deletion", &["impact"]),
    ("T1486", "Data Encrypted for Impact", &["impact"]),
    ("T1489", "Service Stop", &["impact"]),
    ("T1490", "Inhibit System Recovery", &["impact"]),
    ("T1491", "Defacement", &["impact"]),
    ("T1496", "Resource Hijacking", &["impact"]),
    ("T1496.001", "Compute Hijacking", &["impact"]),
    ("T1496.004", "Cloud Service Hijacking", &["impact"]),
    ("T1498", "Network Denial of Service", &["impact"]),
    ("T1499", "Endpoint Denial of Service", &["impact"]),
    ("T1499.002", "Service Exhaustion Flood", &["impact"]),
    ("T1499.003", "Application Exhaustion Flood", &["impact"]),
    (
        "T1499.004",
        "Application or System Exploitation",
        &["impact"],
    ),
    ("T1518", "Software Discovery", &["discovery"]),
    ("T1525", "Implant Internal Image", &["persistence"]),
    ("T1526", "Cloud Service Discovery", &["discovery"]),
    (
        "T1528",
        "Steal Application Access Token",
        &["credential-access"],
    ),
    ("T1530", "Data from Cloud Storage", &["collection"]),
    ("T1531", "Account Access Removal", &["impact"]),
    (
        "T1535",
        "Unused/Unsupported Cloud Regions",
        &["defense-evasion"],
    ),
    ("T1537", "Transfer Data to Cloud Account", &["exfiltration"]),
    ("T1538", "Cloud Service Dashboard", &["discovery"]),
    (
        "T1546",
        "Event Triggered Execution",
        &["persistence", "privilege-escalation"],
    ),
    (
        "T1548",
        "Abuse Elevation Control Mechanism",
        &["privilege-escalation", "defense-evasion"],
    ),
    (
        "T1548.005",
        "Temporary Elevated Cloud Access",
        &["privilege-escalation", "defense-evasion"],
    ),
    (
        "T1550",
        "Use Alternate Authentication Material",
        &["defense-evasion", "lateral-movement"],
    ),
    (
        "T1550.001",
        "Application Access Token",
        &["defense-evasion", "lateral-movement"],
    ),
    (
        "T1550.004",
        "Web Session Cookie",
        &["defense-evasion", "lateral-movement"],
    ),
    ("T1552", "Unsecured Credentials", &["credential-access"]),
    ("T1552.001", "Credentials In Files", &["credential-access"]),
    (
        "T1552.005",
        "Cloud Instance Metadata API",
        &["credential-access"],
    ),
    ("T1552.007", "Container API", &["credential-access"]),
    (
        "T1555",
        "Credentials from Password Stores",
        &["credential-access"],
    ),
    (
        "T1555.006",
        "Cloud Secrets Management Stores",
        &["credential-access"],
    ),
    (
        "T1556",
        "Modify Authentication Process",
        &["credential-access", "defense-evasion", "persistence"],
    ),
    (
        "T1556.006",
        "Multi-Factor Authentication",
        &["credential-access", "defense-evasion", "persistence"],
    ),
    (
        "T1556.009",
        "Conditional Access Policies",
        &["credential-access", "defense-evasion", "persistence"],
    ),
    ("T1562", "Impair Defenses", &["defense-evasion"]),
    ("T1562.001", "Disable or Modify Tools", &["defense-evasion"]),
    (
        "T1562.007",
        "Disable or Modify Cloud Firewall",
        &["defense-evasion"],
    ),
    (
        "T1562.008",
        "Disable or Modify Cloud Logs",
        &["defense-evasion"],
    ),
    ("T1566", "Phishing", &["initial-access"]),
    ("T1567", "Exfiltration Over Web Service", &["exfiltration"]),
    (
        "T1567.002",
        "Exfiltration to Cloud Storage",
        &["exfiltration"],
    ),
    (
        "T1574",
        "Hijack Execution Flow",
        &["persistence", "privilege-escalation", "defense-evasion"],
    ),
    (
        "T1574.006",
        "Dynamic Linker Hijacking",
        &["persistence", "privilege-escalation", "defense-evasion"],
    ),
    (
        "T1578",
        "Modify Cloud Compute Infrastructure",
        &["defense-evasion"],
    ),
    ("T1578.001", "Create Snapshot", &["defense-evasion"]),
    ("T1578.002", "Create Cloud Instance", &["defense-evasion"]),
    ("T1578.003", "Delete Cloud Instance", &["defense-evasion"]),
    ("T1578.004", "Revert Cloud Instance", &["defense-evasion"]),
    (
        "T1578.005",
        "Modify Cloud Compute Configurations",
        &["defense-evasion"],
    ),
    ("T1580", "Cloud Infrastructure Discovery", &["discovery"]),
    ("T1586", "Compromise Accounts", &["resource-development"]),
    ("T1586.003", "Cloud Accounts", &["resource-development"]),
    ("T1606", "Forge Web Credentials", &["credential-access"]),
    (
        "T1610",
        "Deploy Container",
        &["defense-evasion", "execution"],
    ),
    ("T1611", "Escape to Host", &["privilege-escalation"]),
    ("T1612", "Build Image on Host", &["defense-evasion"]),
    ("T1613", "Container and Resource Discovery", &["discovery"]),
    ("T1619", "Cloud Storage Object Discovery", &["discovery"]),
    (
        "T1621",
        "Multi-Factor Authentication Request Generation",
        &["credential-access"],
    ),
    ("T1648", "Serverless Execution", &["execution"]),
    ("T1651", "Cloud Administration Command", &["execution"]),
    ("T1657", "Financial Theft", &["impact"]),
    (
        "T1666",
        "Modify Cloud Resource Hierarchy",
        &["defense-evasion"],
    ),
    ("T1671", "Cloud Application Integration", &["persistence"]),
    ("T1685", "Disable or Modify Tools", &["defense-evasion"]),
    (
        "T1685.002",
        "Disable or Modify Cloud Log",
        &["defense-evasion"],
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn techniques_are_found() {
        assert!(TECHNIQUES.is_sorted_by_key(|(id, ..)| *id));
        for (id, _, tactics) in TECHNIQUES {
            for tactic in *tactics {
                assert!(TACTICS.iter().any(|t| t.slug == *tactic), "{id}: {tactic}");
            }
        }
        let spraying = technique("T1110.003").unwrap();
        assert_eq!(spraying.name, "Password Spraying");
        assert!(spraying.serves("credential-access") && !spraying.serves("impact"));
        assert!(technique("T1562.008").unwrap().serves("defense-impairment"));
        assert_eq!(technique("T9999"), None);
    }
}
