//! Which addresses a webhook may reach: public ones, and others only where the configuration names them.
//!
//! Whoever can set a webhook's URL, or the DNS of its host, could otherwise make this program talk to the
//! metadata service of the cloud or to a neighbour that trusts it. [`Guard::check`] is asked twice with the
//! same words: for the URL when the configuration is read, and for every address that a name resolves to,
//! by the [`Guard`] as the HTTP client's resolver, so that the address checked is the one connected to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Names under which clouds offer their metadata services.
const METADATA_NAMES: &[&str] = &[
    "metadata",
    "metadata.google.internal",
    "metadata.goog",
    "instance-data",
    "instance-data.ec2.internal",
];

/// What is not public, and what it is.
const NOT_PUBLIC_V4: &[(&str, &str)] = &[
    ("0.0.0.0/8", "this host"),
    ("10.0.0.0/8", "private"),
    ("100.64.0.0/10", "shared by a carrier"),
    ("127.0.0.0/8", "loopback"),
    ("169.254.0.0/16", "link-local, also of cloud metadata"),
    ("168.63.129.16/32", "a cloud's platform address"),
    ("172.16.0.0/12", "private"),
    ("192.0.0.0/24", "reserved"),
    ("192.0.2.0/24", "for documentation"),
    ("192.88.99.0/24", "a 6to4 relay"),
    ("192.168.0.0/16", "private"),
    ("198.18.0.0/15", "for benchmarks"),
    ("198.51.100.0/24", "for documentation"),
    ("203.0.113.0/24", "for documentation"),
    ("224.0.0.0/4", "multicast"),
    ("240.0.0.0/4", "reserved"),
];

const NOT_PUBLIC_V6: &[(&str, &str)] = &[
    ("2001::/23", "reserved or a tunnel"),
    ("2001:db8::/32", "for documentation"),
    ("2002::/16", "a 6to4 tunnel"),
    ("3fff::/20", "for documentation"),
];

/// An address that must not be reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The address is not public.
    #[error("the address {address} is {what}: name its network in allow_networks if that is meant")]
    Address {
        /// The address.
        address: IpAddr,
        /// What it is.
        what: &'static str,
    },
    /// The name is one of a cloud's metadata service.
    #[error("`{0}` is the name of a cloud's metadata service")]
    Metadata(String),
}

/// Refuses what is not public unless it is in one of the allowed networks.
#[derive(Debug, Clone, Default)]
pub struct Guard {
    allowed: Vec<IpNet>,
}

impl Guard {
    /// A guard that lets the networks pass, given in CIDR form or as single addresses; or the text that is none.
    pub fn new(networks: &[String]) -> Result<Guard, String> {
        let allowed = networks
            .iter()
            .map(|text| {
                text.parse::<IpNet>()
                    .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
                    .map_err(|_| format!("`{text}` is no network such as 10.1.0.0/16"))
            })
            .collect::<Result<_, _>>()?;
        Ok(Guard { allowed })
    }

    /// May the address be reached?
    pub fn check(&self, address: IpAddr) -> Result<(), Refused> {
        let address = address.to_canonical();
        if self.allowed.iter().any(|net| net.contains(&address)) {
            return Ok(());
        }
        match not_public(address) {
            None => Ok(()),
            Some(what) => Err(Refused::Address { address, what }),
        }
    }

    /// May a host of this name be asked at all?
    pub fn check_name(&self, name: &str) -> Result<(), Refused> {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        if METADATA_NAMES.contains(&name.as_str()) {
            return Err(Refused::Metadata(name));
        }
        Ok(())
    }
}

fn not_public(address: IpAddr) -> Option<&'static str> {
    let listed = |list: &[(&str, &'static str)]| {
        list.iter()
            .find(|(net, _)| {
                let net: IpNet = net.parse().expect("the table holds networks");
                net.contains(&address)
            })
            .map(|(_, what)| *what)
    };
    match address {
        IpAddr::V4(_) => listed(NOT_PUBLIC_V4),
        IpAddr::V6(v6) if v6.segments()[0] & 0xe000 != 0x2000 => Some(outside_global(v6)),
        IpAddr::V6(_) => listed(NOT_PUBLIC_V6),
    }
}

/// What an IPv6 address outside 2000::/3, the only part with public addresses, is.
fn outside_global(address: Ipv6Addr) -> &'static str {
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 1] => "loopback",
        [0, 0, 0, 0, 0, 0, ..] => "this host or an embedded IPv4 address",
        [0x64, 0xff9b, ..] => "a NAT64 translation",
        [first, ..] if first & 0xfe00 == 0xfc00 => "private",
        [first, ..] if first & 0xff80 == 0xfe80 => "link-local",
        [first, ..] if first & 0xff00 == 0xff00 => "multicast",
        _ => "reserved",
    }
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.clone();
        Box::pin(async move {
            guard.check_name(name.as_str())?;
            let found: Vec<SocketAddr> =
                tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            // One bad address spoils the name: whoever mixes them in wants the bad one to be taken.
            for address in &found {
                guard.check(address.ip())?;
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// Is it an address of this machine alone?
pub fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .parse::<IpAddr>()
            .is_ok_and(|ip| {
                ip.to_canonical().is_loopback() && ip != IpAddr::V4(Ipv4Addr::UNSPECIFIED)
            })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(address: &str, refused: bool) {
        let guard = Guard::default();
        assert_eq!(
            guard.check(address.parse().unwrap()).is_err(),
            refused,
            "{address}"
        );
    }

    #[test]
    fn what_is_not_public() {
        for address in [
            "127.0.0.1",
            "127.255.255.254",
            "0.1.2.3",
            "0.0.0.0",
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "100.64.0.1",
            "100.127.255.255",
            "169.254.169.254",
            "169.254.170.2",
            "168.63.129.16",
            "192.0.0.192",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:10.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "64:ff9b::a00:1",
            "64:ff9b:1::1",
            "2002:a00:1::",
            "2001::1",
            "2001:db8::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            check(address, true);
        }
    }

    #[test]
    fn what_is_public() {
        for address in [
            "8.8.8.8",
            "172.32.0.1",
            "100.128.0.1",
            "168.63.129.17",
            "2606:4700::1",
            "::ffff:8.8.8.8",
        ] {
            check(address, false);
        }
    }

    #[test]
    fn what_is_allowed_by_name() {
        let guard = Guard::new(&["10.1.0.0/16".into(), "::1".into()]).unwrap();
        assert!(guard.check("10.1.2.3".parse().unwrap()).is_ok());
        assert!(guard.check("::ffff:10.1.2.3".parse().unwrap()).is_ok());
        assert!(guard.check("::1".parse().unwrap()).is_ok());
        assert!(guard.check("10.2.0.1".parse().unwrap()).is_err());
        assert!(Guard::new(&["10.1".into()]).is_err());
        assert!(guard.check_name("Metadata.Google.Internal.").is_err());
        assert!(guard.check_name("hooks.example").is_ok());
    }
}
