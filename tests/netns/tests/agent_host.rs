//! `namegate agent` on hosts as they are: firewalls that drop, IPVS, and whether DNS gets through.

mod agent;

use agent::{Node, Pod, answered, names};
use anyhow::{Result, ensure};
use support::{World, slowness, until, world::address as at};

const READY: std::time::Duration = std::time::Duration::from_secs(30);

/// As iptables leaves it, and as an nftables ruleset of one's own does: one drops by policy, one by its
/// last rule, both ways.
const FIREWALLS: [&str; 3] = [
    "table ip filter { chain INPUT { type filter hook input priority filter; policy drop; iif lo accept; }; \
     chain OUTPUT { type filter hook output priority filter; policy drop; oif lo accept; ip daddr 203.0.113.0/24 accept; }; }",
    "table ip6 filter { chain INPUT { type filter hook input priority filter; policy drop; iif lo accept; \
     icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept; }; }",
    "table inet own { chain in { type filter hook input priority 10; policy accept; iif lo accept; \
     ct state established accept; icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept; counter drop; }; }",
];

/// The node's side of upstream DNS is its own business: its firewall lets that in.
const ANSWERS: &str = "table ip filter { chain INPUT { ct state established accept; }; }\n\
                       table ip6 filter { chain INPUT { ct state established accept; }; }";

fn ready(node: &Node<'_>) -> Result<support::Output> {
    let url = "http://127.0.0.1:9963/readyz";
    node.world
        .host
        .output("curl", &["-sS", "-w", "%{http_code}", url])
}

#[test]
fn it_works_beside_firewalls_that_drop_and_leaves_them_as_they_were() -> Result<()> {
    let world = World::new()?;
    let mut node = Node::new(&world)?;
    for firewall in FIREWALLS {
        world.host.nft(firewall)?;
    }
    world.host.nft(ANSWERS)?;
    let pod = Pod::routed(&world, 1)?;
    node.policy("web.yaml", &names("web", "{}", &["example.test"]))?;
    node.configure(&[(&pod, "{app: web}")], "")?;
    let ruleset = || {
        world
            .host
            .output("nft", &["-s", "list", "ruleset"])?
            .ok("nft")
    };
    let before = ruleset()?;
    node.start()?;
    node.until_state(&pod, "enforcing")?;
    ensure!(ready(&node)?.stdout.ends_with("200"), "{}", node.log());
    ensure!(
        pod.resolve("example.test")?.contains(at::EXAMPLE),
        "{}",
        node.log()
    );
    answered(&node, &pod.get("example.test", at::EXAMPLE)?, at::EXAMPLE)?;
    let six = format!(
        "dig +time={} +tries=3 +short @{} AAAA example.test",
        2 * slowness(),
        at::RESOLVER6
    );
    ensure!(pod.ok(&six)?.contains(at::EXAMPLE6), "{}", node.log());

    // Somebody reloads the firewall: our rules are gone until they are looked for again.
    world.host.nft("flush chain inet own in")?;
    world
        .host
        .nft("add rule inet own in ct state established accept")?;
    world.host.nft("add rule inet own in counter drop")?;
    node.agent()?.signal(nix::sys::signal::Signal::SIGHUP)?;
    until(READY, "DNS past the new firewall", || {
        pod.resolve("api.example.test")
            .ok()
            .filter(|answer| answer.contains(at::API))
    })?;
    world.host.nft("delete table inet own")?;
    world.host.nft(FIREWALLS[2])?;

    // A killed agent leaves them, the next one replaces them, an orderly end takes them back.
    node.kill()?;
    node.start()?;
    node.until_state(&pod, "enforcing")?;
    ensure!(
        pod.resolve("example.test")?.contains(at::EXAMPLE),
        "{}",
        node.log()
    );
    node.stop()?;
    node.remove()?.ok("--remove")?;
    assert_eq!(ruleset()?, before);
    Ok(())
}

#[test]
fn where_ipvs_translates_services_it_does_not_start_and_says_why() -> Result<()> {
    let world = World::new()?;
    let mut node = Node::new(&world)?;
    let pod = Pod::routed(&world, 1)?;
    world
        .host
        .ip(&["link", "add", "kube-ipvs0", "type", "bridge"])?;
    node.policy("web.yaml", &names("web", "{}", &["example.test"]))?;
    node.configure(&[(&pod, "{app: web}")], "")?;
    node.launch()?;
    let ended = node.agent()?.wait(READY)?;
    ensure!(
        ended.status == 1 && ended.stderr.contains("IPVS") && ended.stderr.contains("kube-ipvs0"),
        "{ended:?}"
    );
    Ok(())
}

#[test]
fn readiness_is_a_query_that_was_steered_and_answered() -> Result<()> {
    let world = World::new()?;
    let mut node = Node::new(&world)?;
    let pod = Pod::routed(&world, 1)?;
    // Where no accept of ours can be: before anybody's input chain.
    world.host.nft(
        "table inet stray { chain pre { type filter hook prerouting priority mangle; \
         meta mark and 0xf00 == 0x200 counter drop; }; }",
    )?;
    node.policy("web.yaml", &names("web", "{}", &["example.test"]))?;
    node.configure(&[(&pod, "{app: web}")], "")?;
    node.start()?;
    let answer = ready(&node)?;
    ensure!(
        answer.stdout.contains("steered query over IPv4") && answer.stdout.ends_with("503"),
        "{answer:?}"
    );
    let status = node.client().text(&["status"])?;
    ensure!(status.contains("DNS is not steered"), "{status}");
    ensure!(node.log().contains("DNS is not steered"), "{}", node.log());

    world.host.nft("delete table inet stray")?;
    node.agent()?.signal(nix::sys::signal::Signal::SIGHUP)?;
    until(READY, "readiness", || {
        ready(&node)
            .ok()
            .filter(|answer| answer.stdout.ends_with("200"))
    })?;
    // Of the one who asked nothing is left.
    let links = world.host.ip(&["link", "show"])?;
    ensure!(!links.contains("namegate-trial"), "{links}");
    let known = node.client().text(&["endpoint", "list"])?;
    assert_eq!(known.lines().count(), 2, "{known}");
    let metrics = node
        .world
        .host
        .output("curl", &["-sS", "http://127.0.0.1:9963/metrics"])?;
    ensure!(
        metrics.stdout.contains("namegate_dns_steered 1"),
        "{metrics:?}"
    );
    Ok(())
}
