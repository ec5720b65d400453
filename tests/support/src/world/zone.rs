//! The names of the world, as one root zone.
//!
//! In:  addresses, how many fresh names there shall be.
//! Out: the text of a zone file for unbound; everything that is not in it does not exist.
//! Not here: serving it (`dns`).

use std::fmt::Write;

use super::address as at;

/// How many fresh names there are unless somebody needs more.
pub(super) const FRESH: u32 = 6000;
/// How many addresses `huge.test` has: more than fit into 1,232 bytes.
const HUGE: u32 = 120;

/// A name that nobody has asked for, if nobody used the number before.
pub fn race_name(number: u32) -> String {
    format!("n{number}.race.test")
}

/// The zone file.
pub(super) fn text(fresh: u32) -> String {
    let mut zone = String::from(
        ". 3600 IN SOA ns.test. root.test. 1 3600 600 86400 5\n. 3600 IN NS ns.test.\n",
    );
    let rows: &[(&str, u32, &str)] = &[
        ("ns.test.", 3600, at::RESOLVER),
        ("example.test.", 300, at::EXAMPLE),
        ("example.test.", 300, at::EXAMPLE6),
        ("api.example.test.", 300, at::API),
        ("a.b.example.test.", 300, at::DEEP),
        ("evilexample.test.", 300, at::EVIL),
        ("edge.cdn.test.", 300, at::EDGE),
        ("short.ttl.test.", 1, at::SHARED),
        ("long.ttl.test.", 300, at::SHARED),
        ("brief.test.", 1, at::BRIEF),
        ("six.test.", 300, at::SIX6),
        ("other.test.", 300, at::OTHER),
        ("other.test.", 300, at::OTHER6),
        ("evil.test.", 300, at::EVIL),
        ("evil.test.", 300, at::EVIL6),
        ("github.com.", 60, at::GITHUB),
        ("api.github.com.", 60, at::GITHUB_API),
        ("raw.githubusercontent.com.", 60, at::GITHUB_API),
        ("api.stripe.com.", 60, at::STRIPE),
        ("loop.test.", 300, "127.0.0.1"),
        ("metadata.test.", 300, "169.254.169.254"),
    ];
    for (name, ttl, address) in rows {
        record(&mut zone, name, *ttl, address);
    }
    for (name, target) in [
        ("www.chain.test.", "mid.cdn.test."),
        ("mid.cdn.test.", "edge.cdn.test."),
    ] {
        let _ = writeln!(zone, "{name} 120 IN CNAME {target}");
    }
    for (number, address) in at::MANY.iter().enumerate() {
        record(&mut zone, &format!("m{number}.many.test."), 300, address);
    }
    for number in 0..HUGE {
        record(
            &mut zone,
            "huge.test.",
            300,
            &format!("203.0.113.{}", 100 + number),
        );
    }
    for number in 0..fresh {
        let name = format!("{}.", race_name(number));
        record(
            &mut zone,
            &name,
            300,
            &format!(
                "100.{}.{}.{}",
                64 + number / 62_500,
                number / 250 % 250,
                number % 250 + 1
            ),
        );
        record(
            &mut zone,
            &name,
            300,
            &format!(
                "2001:db8:64::{:x}:{:x}",
                (number + 1) >> 16,
                (number + 1) & 0xffff
            ),
        );
    }
    zone
}

fn record(zone: &mut String, name: &str, ttl: u32, address: &str) {
    let kind = if address.contains(':') { "AAAA" } else { "A" };
    let _ = writeln!(zone, "{name} {ttl} IN {kind} {address}");
}
