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

/// The name of a technique such as `T1110.001`, where it is known.
pub fn technique(id: &str) -> Option<&'static str> {
    TECHNIQUES
        .binary_search_by_key(&id, |(known, _)| known)
        .ok()
        .map(|at| TECHNIQUES[at].1)
}

/// Techniques by id, in order of it.
const TECHNIQUES: &[(&str, &str)] = &[
    ("T1021", "Remote Services"),
    ("T1021.004", "SSH"),
    ("T1021.007", "Cloud Services"),
    ("T1021.008", "Direct Cloud VM Connections"),
    ("T1037", "Boot or Logon Initialization Scripts"),
    ("T1046", "Network Service Discovery"),
    ("T1048", "Exfiltration Over Alternative Protocol"),
    ("T1059", "Command and Scripting Interpreter"),
    ("T1059.009", "Cloud API"),
    ("T1068", "Exploitation for Privilege Escalation"),
    ("T1069", "Permission Groups Discovery"),
    ("T1069.003", "Cloud Groups"),
    ("T1070", "Indicator Removal"),
    ("T1074", "Data Staged"),
    ("T1074.002", "Remote Data Staging"),
    ("T1078", "Valid Accounts"),
    ("T1078.001", "Default Accounts"),
    ("T1078.002", "Domain Accounts"),
    ("T1078.004", "Cloud Accounts"),
    ("T1082", "System Information Discovery"),
    ("T1083", "File and Directory Discovery"),
    ("T1087", "Account Discovery"),
    ("T1087.004", "Cloud Account"),
    ("T1090", "Proxy"),
    ("T1098", "Account Manipulation"),
    ("T1098.001", "Additional Cloud Credentials"),
    ("T1098.003", "Additional Cloud Roles"),
    ("T1098.004", "SSH Authorized Keys"),
    ("T1105", "Ingress Tool Transfer"),
    ("T1106", "Native API"),
    ("T1110", "Brute Force"),
    ("T1110.001", "Password Guessing"),
    ("T1110.002", "Password Cracking"),
    ("T1110.003", "Password Spraying"),
    ("T1110.004", "Credential Stuffing"),
    ("T1119", "Automated Collection"),
    ("T1133", "External Remote Services"),
    ("T1134", "Access Token Manipulation"),
    ("T1136", "Create Account"),
    ("T1136.003", "Cloud Account"),
    ("T1190", "Exploit Public-Facing Application"),
    ("T1195", "Supply Chain Compromise"),
    ("T1199", "Trusted Relationship"),
    ("T1201", "Password Policy Discovery"),
    ("T1204", "User Execution"),
    ("T1204.003", "Malicious Image"),
    ("T1213", "Data from Information Repositories"),
    ("T1484", "Domain or Tenant Policy Modification"),
    ("T1484.002", "Trust Modification"),
    ("T1485", "Data Destruction"),
    ("T1485.001", "Lifecycle-Triggered Deletion"),
    ("T1486", "Data Encrypted for Impact"),
    ("T1489", "Service Stop"),
    ("T1490", "Inhibit System Recovery"),
    ("T1491", "Defacement"),
    ("T1496", "Resource Hijacking"),
    ("T1496.001", "Compute Hijacking"),
    ("T1496.004", "Cloud Service Hijacking"),
    ("T1498", "Network Denial of Service"),
    ("T1499", "Endpoint Denial of Service"),
    ("T1499.002", "Service Exhaustion Flood"),
    ("T1499.003", "Application Exhaustion Flood"),
    ("T1499.004", "Application or System Exploitation"),
    ("T1518", "Software Discovery"),
    ("T1525", "Implant Internal Image"),
    ("T1526", "Cloud Service Discovery"),
    ("T1528", "Steal Application Access Token"),
    ("T1530", "Data from Cloud Storage"),
    ("T1531", "Account Access Removal"),
    ("T1535", "Unused/Unsupported Cloud Regions"),
    ("T1537", "Transfer Data to Cloud Account"),
    ("T1538", "Cloud Service Dashboard"),
    ("T1546", "Event Triggered Execution"),
    ("T1548", "Abuse Elevation Control Mechanism"),
    ("T1548.005", "Temporary Elevated Cloud Access"),
    ("T1550", "Use Alternate Authentication Material"),
    ("T1550.001", "Application Access Token"),
    ("T1550.004", "Web Session Cookie"),
    ("T1552", "Unsecured Credentials"),
    ("T1552.001", "Credentials In Files"),
    ("T1552.005", "Cloud Instance Metadata API"),
    ("T1552.007", "Container API"),
    ("T1555", "Credentials from Password Stores"),
    ("T1555.006", "Cloud Secrets Management Stores"),
    ("T1556", "Modify Authentication Process"),
    ("T1556.006", "Multi-Factor Authentication"),
    ("T1556.009", "Conditional Access Policies"),
    ("T1562", "Impair Defenses"),
    ("T1562.001", "Disable or Modify Tools"),
    ("T1562.007", "Disable or Modify Cloud Firewall"),
    ("T1562.008", "Disable or Modify Cloud Logs"),
    ("T1566", "Phishing"),
    ("T1567", "Exfiltration Over Web Service"),
    ("T1567.002", "Exfiltration to Cloud Storage"),
    ("T1574", "Hijack Execution Flow"),
    ("T1574.006", "Dynamic Linker Hijacking"),
    ("T1578", "Modify Cloud Compute Infrastructure"),
    ("T1578.001", "Create Snapshot"),
    ("T1578.002", "Create Cloud Instance"),
    ("T1578.003", "Delete Cloud Instance"),
    ("T1578.004", "Revert Cloud Instance"),
    ("T1578.005", "Modify Cloud Compute Configurations"),
    ("T1580", "Cloud Infrastructure Discovery"),
    ("T1586", "Compromise Accounts"),
    ("T1586.003", "Cloud Accounts"),
    ("T1606", "Forge Web Credentials"),
    ("T1610", "Deploy Container"),
    ("T1611", "Escape to Host"),
    ("T1612", "Build Image on Host"),
    ("T1613", "Container and Resource Discovery"),
    ("T1619", "Cloud Storage Object Discovery"),
    ("T1621", "Multi-Factor Authentication Request Generation"),
    ("T1648", "Serverless Execution"),
    ("T1651", "Cloud Administration Command"),
    ("T1657", "Financial Theft"),
    ("T1666", "Modify Cloud Resource Hierarchy"),
    ("T1671", "Cloud Application Integration"),
    ("T1685", "Disable or Modify Tools"),
    ("T1685.002", "Disable or Modify Cloud Log"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn techniques_are_found() {
        assert!(TECHNIQUES.is_sorted_by_key(|(id, _)| *id));
        assert_eq!(technique("T1110.003"), Some("Password Spraying"));
        assert_eq!(technique("T9999"), None);
    }
}
