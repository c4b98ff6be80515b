//! Which addresses the server may connect to: the public Internet, and what the configuration adds.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Refuses addresses inside the operator's own network unless they are listed.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    allowed: Vec<IpNet>,
}

impl Guard {
    /// A guard that also lets through the listed ranges.
    pub fn new(allowed: Vec<IpNet>) -> Self {
        Self { allowed }
    }

    /// Whether a connection to `address` may be made.
    pub fn permits(&self, address: IpAddr) -> bool {
        let inner = embedded(address).map(IpAddr::V4);
        let listed = |a: &IpAddr| self.allowed.iter().any(|range| range.contains(a));
        listed(&address) || inner.as_ref().is_some_and(listed) || public(address)
    }
}

/// Whether an address belongs to the public Internet, whatever way it is written.
fn public(address: IpAddr) -> bool {
    match (address, embedded(address)) {
        (_, Some(inner)) => public_v4(inner),
        (IpAddr::V4(v4), None) => public_v4(v4),
        (IpAddr::V6(v6), None) => public_v6(v6),
    }
}

/// The IPv4 address inside an IPv6 one: mapped, compatible, translated, NAT64, 6to4.
fn embedded(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(v6) = address else { return None };
    let s = v6.segments();
    let from = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match s {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x2002, high, low, ..] => Some(from(high, low)),
        _ => None,
    }
}

fn public_v4(v4: Ipv4Addr) -> bool {
    let [a, b, c, _] = v4.octets();
    let special = v4.is_private()
        || v4.is_loopback()
        || v4.is_link_local()
        || v4.is_multicast()
        || v4.is_documentation()
        || a == 0
        || a >= 240
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (b == 18 || b == 19));
    !special
}

/// Global unicast is `2000::/3`; of it, documentation, benchmarking and ORCHID ranges are not routed.
fn public_v6(v6: Ipv6Addr) -> bool {
    let s = v6.segments();
    let global = s[0] & 0xe000 == 0x2000;
    let documentation = (s[0] == 0x2001 && s[1] == 0xdb8) || (s[0] == 0x3fff && s[1] < 0x1000);
    let assignments = s[0] == 0x2001 && s[1] < 0x200;
    global && !documentation && !assignments
}

#[cfg(test)]
mod tests {
    use super::Guard;

    fn permits(guard: &Guard, address: &str) -> bool {
        guard.permits(address.parse().unwrap())
    }

    #[test]
    fn inner_addresses_are_refused_however_they_are_written() {
        let guard = Guard::default();
        for refused in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "198.18.0.1",
            "192.0.0.8",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "fd12::1",
            "fec0::1",
            "ff02::1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::a00:1",
            "2002:0a00:0001::",
            "2001:0:1::80ff:fffe",
            "2001:db8::1",
            "::ffff:0:127.0.0.1",
        ] {
            assert!(!permits(&guard, refused), "{refused}");
        }
        for allowed in ["1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8", "172.32.0.1", "64:ff9b::808:808"] {
            assert!(permits(&guard, allowed), "{allowed}");
        }
    }

    #[test]
    fn listed_ranges_are_let_through_and_nothing_beside_them() {
        let guard = Guard::new(vec!["10.1.0.0/16".parse().unwrap(), "::1/128".parse().unwrap()]);
        assert!(permits(&guard, "10.1.9.9"));
        assert!(permits(&guard, "::ffff:10.1.9.9"));
        assert!(permits(&guard, "::1"));
        assert!(!permits(&guard, "10.2.0.1"));
        assert!(!permits(&guard, "127.0.0.1"));
    }
}
