//! Ways out through the network that need a policy to be refused: other addresses, other resolvers, IPv6.

use anyhow::{Result, ensure};
use escape::Attack;
use support::{World, world::address as at};

/// Nothing of the attack may arrive in the world.
fn nothing_arrives(script: &str, at: &str, refusal: &str) -> Result<()> {
    let world = World::new()?;
    let outcome = Attack::new(script).in_world(&world)?;
    outcome.refused(refusal)?;
    let arrived = world.arrived_at(at)?;
    ensure!(
        arrived == 0,
        "{arrived} packets of `{script}` arrived: {}",
        outcome.everything()
    );
    Ok(())
}

#[test]
fn ipv4_address_nobody_resolved() -> Result<()> {
    nothing_arrives(
        &format!("curl -sS -m 2 http://{} && echo ESCAPED", at::EVIL),
        at::EVIL,
        "curl: (",
    )
}

#[test]
fn ipv6_address_nobody_resolved() -> Result<()> {
    nothing_arrives(
        &format!("curl -gsS -m 2 http://[{}] && echo ESCAPED", at::EVIL6),
        at::EVIL6,
        "curl: (",
    )
}

#[test]
fn dns_over_udp_to_another_server() -> Result<()> {
    let script = format!(
        "dig +tries=1 +timeout=2 @{} evil.test A | grep -w {} && echo ESCAPED; echo tried",
        at::LIAR,
        at::EVIL
    );
    nothing_arrives(&script, at::LIAR, "tried")
}

#[test]
fn dns_over_tcp_to_another_server() -> Result<()> {
    let script = format!(
        "dig +tcp +tries=1 +timeout=2 @{} evil.test A | grep -w {} && echo ESCAPED; echo tried",
        at::LIAR,
        at::EVIL
    );
    nothing_arrives(&script, at::LIAR, "tried")
}

#[test]
fn ping() -> Result<()> {
    let program = format!(
        "use Socket; socket(my $s, 2, 2, 1) or die; send($s, pack(\"C2n3\", 8, 0, 0, 1, 1), 0, \
         pack_sockaddr_in(0, inet_aton(\"{}\"))); select(undef, undef, undef, 1); print \"tried\"",
        at::EVIL
    );
    nothing_arrives(
        &format!("perl -e '{program}' 2>&1 || echo tried"),
        at::EVIL,
        "tried",
    )
}

/// The machine itself is not the world: a service on it is reached only if the policy says so.
#[test]
fn services_of_the_machine() -> Result<()> {
    let world = World::new()?;
    let script = format!(
        "for a in {} $(ip route | sed -n 's/default via \\([0-9.]*\\).*/\\1/p'); do \
         timeout 2 bash -c \"exec 3<>/dev/tcp/$a/47012 && echo ESCAPED\"; done 2>/dev/null; echo tried",
        at::HOST4
    );
    let mut listener = world.host.command("ncat");
    let _listener = support::Process::spawn("ncat", listener.args(["-lk", "0.0.0.0", "47012"]))?;
    Attack::new(&script).in_world(&world)?.refused("tried")
}
