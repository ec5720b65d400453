//! A machine as it is found: firewalls, forwarding off, strict reverse paths, its own resolver.
//!
//! Nothing but `--allow` (and `--dns` where the machine's resolver is not the point) is given.

use anyhow::Result;
use netns::{answered_by, get};
use support::leftovers::Machine;
use support::world::{Stub, address as at};
use support::{Run, World};

const FORWARD_DROP: &str = "
    table ip filter { chain FORWARD { type filter hook forward priority filter; policy drop; }; }
    table ip6 filter { chain FORWARD { type filter hook forward priority filter; policy drop; }; }";
const FORWARD_DROP_NATIVE: &str = "
    table inet firewall { chain forward { type filter hook forward priority filter; policy accept; counter reject; }; }";
const INPUT_DROP: &str = "
    table ip filter { chain INPUT { type filter hook input priority filter; policy drop; iif lo accept; }; }
    table ip6 filter { chain INPUT { type filter hook input priority filter; policy drop; iif lo accept; icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept; }; }";

/// The command works with both families, and the machine is as it was afterwards.
fn works<'a>(world: &'a World, run: impl Fn() -> Result<Run<'a>>) -> Result<()> {
    let before = Machine::look(&world.host)?;
    let mut pod = run()?.allow("example.test").shell()?;
    answered_by(&pod.sh(&get("-4 https://example.test/"))?, at::EXAMPLE)?;
    answered_by(&pod.sh(&get("-6 https://example.test/"))?, at::EXAMPLE6)?;
    pod.finish()?.expect(0)?;
    before.restored(&world.host)
}

#[test]
fn works_beside_forward_drop_as_docker_and_ufw_leave_it() -> Result<()> {
    let world = World::new()?;
    world.host.nft(FORWARD_DROP)?;
    works(&world, || world.run_with_dns())
}

#[test]
fn works_beside_a_native_forward_chain_that_rejects() -> Result<()> {
    let world = World::new()?;
    world.host.nft(FORWARD_DROP_NATIVE)?;
    works(&world, || world.run_with_dns())
}

#[test]
fn works_beside_input_drop() -> Result<()> {
    let world = World::new()?;
    world.host.nft(INPUT_DROP)?;
    works(&world, || world.run_with_dns())
}

#[test]
fn works_with_forwarding_off_and_strict_reverse_paths() -> Result<()> {
    let world = World::new()?;
    strict(&world)?;
    works(&world, || world.run_with_dns())
}

#[test]
fn works_beside_all_of_it_with_nothing_but_allow_and_dns() -> Result<()> {
    let world = World::new()?;
    world.host.nft(FORWARD_DROP)?;
    world.host.nft(FORWARD_DROP_NATIVE)?;
    world.host.nft(INPUT_DROP)?;
    strict(&world)?;
    let done = world
        .run_with_dns()?
        .bare()
        .allow("example.test")
        .script(&get("-4 https://example.test/"))?;
    assert_eq!(done.expect(0)?.split_whitespace().nth(1), Some(at::EXAMPLE));
    works(&world, || world.run_with_dns())
}

#[test]
fn the_hosts_resolver_is_used_when_none_is_named() -> Result<()> {
    let world = World::new()?;
    works(&world, || {
        world
            .run()?
            .resolv_conf(&format!("nameserver {}\noptions timeout:2\n", at::RESOLVER))
    })
}

#[test]
fn a_stub_resolver_on_the_hosts_loopback_is_used_too() -> Result<()> {
    let world = World::new()?;
    let _stub = Stub::start(&world.host, world.files())?;
    strict(&world)?;
    works(&world, || {
        world.run()?.resolv_conf(&format!(
            "nameserver {}\noptions edns0 trust-ad\n",
            Stub::ADDRESS
        ))
    })
}

#[test]
fn a_host_without_an_ipv6_route_gets_a_pod_without_ipv6() -> Result<()> {
    let world = World::new()?;
    world.host.ip(&["-6", "route", "del", "default"])?;
    world.host.ip(&[
        "-6",
        "address",
        "del",
        &format!("{}/64", at::HOST6),
        "dev",
        "eth0",
    ])?;
    let mut pod = world.run_with_dns()?.allow("example.test").shell()?;
    assert_eq!(pod.ok("ip -6 route show default")?, "");
    // No family to fall back from: the plain request goes over IPv4 at once.
    answered_by(&pod.sh(&get("https://example.test/"))?, at::EXAMPLE)?;
    pod.finish()?.expect(0)?;
    Ok(())
}

#[test]
fn ipv6_can_be_switched_off() -> Result<()> {
    let world = World::new()?;
    let mut pod = world
        .run_with_dns()?
        .option("--ipv6", "off")
        .allow("example.test")
        .shell()?;
    assert_eq!(pod.ok("ip -6 route show default")?, "");
    answered_by(&pod.sh(&get("https://example.test/"))?, at::EXAMPLE)?;
    pod.finish()?.expect(0)?;
    assert_eq!(world.arrived(at::EXAMPLE6, 443)?, 0);
    Ok(())
}

fn strict(world: &World) -> Result<()> {
    for (key, value) in [
        ("net.ipv4.ip_forward", "0"),
        ("net.ipv6.conf.all.forwarding", "0"),
        ("net.ipv4.conf.all.rp_filter", "1"),
        ("net.ipv4.conf.default.rp_filter", "1"),
        ("net.ipv4.conf.eth0.rp_filter", "1"),
    ] {
        world.host.sysctl(key, value)?;
    }
    Ok(())
}
