//! The way of a question: UDP and TCP, IPv4 and IPv6, large answers, refusals, other resolvers.

use anyhow::{Result, ensure};
use netns::policies::{DNS, dns_only, policy, to_name};
use netns::{answered_by, connect, dig, get, knock, refused};
use support::{World, world::address as at, world::race_name};

const HELPER: &str = env!("CARGO_BIN_EXE_resolve-connect");

#[test]
fn a_name_learned_over_tcp_opens_its_address() -> Result<()> {
    let world = World::new()?;
    let mut pod = world.run_with_dns()?.allow("example.test").shell()?;
    assert_eq!(pod.ok(&dig("+tcp +short example.test"))?, at::EXAMPLE);
    answered_by(
        &pod.sh(&get(&format!("-k https://{}/", at::EXAMPLE)))?,
        at::EXAMPLE,
    )?;
    // Several questions after each other on one connection.
    let two = pod.ok(&dig("+tcp +keepopen +short example.test api.example.test"))?;
    assert_eq!(two.lines().collect::<Vec<_>>(), [at::EXAMPLE, at::API]);
    pod.finish()?.expect(0)?;
    Ok(())
}

#[test]
fn pipelined_questions_are_each_answered_and_each_learned() -> Result<()> {
    let world = World::new()?;
    let mut pod = world.run_with_dns()?.allow("*.race.test").shell()?;
    let names: Vec<String> = (100..140).map(race_name).collect();
    let line = pod.ok(&format!("{HELPER} pipeline {}", names.join(" ")))?;
    let answers: std::collections::BTreeMap<String, String> = serde_json::from_str(&line)?;
    assert_eq!(answers.len(), names.len());
    for (number, name) in (100..140).zip(&names) {
        assert_eq!(answers.get(name), Some(&format!("100.64.0.{}", number + 1)));
    }
    for number in [100, 119, 139] {
        answered_by(
            &pod.sh(&get(&format!("-k https://100.64.0.{}/", number + 1)))?,
            &format!("100.64.0.{}", number + 1),
        )?;
    }
    refused(&pod.sh(&connect("100.64.0.99", 443))?)?;
    pod.finish()?.expect(0)?;
    Ok(())
}

#[test]
fn an_ipv6_address_is_learned_and_reached() -> Result<()> {
    let world = World::new()?;
    let mut pod = world
        .run_with_dns()?
        .allow("six.test")
        .allow("example.test")
        .shell()?;
    assert_eq!(pod.ok(&dig("+short AAAA six.test"))?, at::SIX6);
    let six = pod.sh(&get("https://six.test/"))?;
    assert_eq!(
        six.stdout.trim(),
        format!("six.test {} {}", at::SIX6, at::HOST6),
        "{six:?}"
    );
    answered_by(&pod.sh(&get("-6 https://example.test/"))?, at::EXAMPLE6)?;
    refused(&pod.sh(&knock("-6 http://example.test/"))?)?;
    refused(&pod.sh(&knock("-6 https://other.test/"))?)?;
    assert_eq!(
        world.arrived(at::EXAMPLE6, 80)? + world.arrived(at::OTHER6, 443)?,
        0
    );
    let done = pod.finish()?;
    assert!(done.report()?.denied_to(at::OTHER6, 443).is_some());
    Ok(())
}

#[test]
fn an_answer_too_large_for_udp_is_asked_again_over_tcp() -> Result<()> {
    let world = World::new()?;
    let mut pod = world.run_with_dns()?.allow("huge.test:80").shell()?;
    ensure!(
        pod.ok(&dig("+ignore huge.test"))?.contains(" tc"),
        "truncation is passed on"
    );
    let all = pod.ok(&dig("+short huge.test"))?;
    assert_eq!(
        all.lines()
            .filter(|line| line.starts_with("203.0.113."))
            .count(),
        120,
        "{all}"
    );
    let cache = pod
        .client(&world.host)
        .json(&["fqdn", "cache", "list", "-p", "huge.test"])?;
    let ips = cache
        .pointer("/0/ips")
        .and_then(|ips| ips.as_array())
        .map_or(0, Vec::len);
    assert_eq!(ips, 120, "every address was learned: {cache}");
    pod.finish()?.expect(0)?;
    Ok(())
}

#[test]
fn an_answer_larger_than_a_packet_arrives_over_udp_in_fragments() -> Result<()> {
    let world = World::new()?;
    let mut pod = world.run_with_dns()?.allow("huge.test:80").shell()?;
    let answer = pod.ok(&dig("+notcp +ignore +bufsize=4096 huge.test"))?;
    ensure!(
        answer.contains("ANSWER: 120") && !answer.contains(" tc"),
        "{answer}"
    );
    let size = answer
        .lines()
        .find_map(|line| line.strip_prefix(";; MSG SIZE  rcvd: "));
    ensure!(
        size.is_some_and(|size| size.parse::<usize>().is_ok_and(|size| size > 1500)),
        "{answer}"
    );
    let cache = pod.client(&world.host).json(&["fqdn", "cache", "list"])?;
    let ips = cache
        .pointer("/0/ips")
        .and_then(|ips| ips.as_array())
        .map_or(0, Vec::len);
    assert_eq!(ips, 120, "{cache}");
    pod.finish()?.expect(0)?;
    Ok(())
}

#[test]
fn a_question_asked_over_ipv6_is_answered_by_the_server_it_was_sent_to() -> Result<()> {
    let world = World::new()?;
    let anywhere =
        "- toEntities: [world]\n  toPorts:\n  - ports: [{ port: \"53\", protocol: ANY }]\n";
    let text = policy("over-six", &[DNS, anywhere, &to_name("example.test")]);
    let mut pod = world.run()?.dns(at::RESOLVER6).policy(&text)?.shell()?;
    let gateway = pod.ok("ip -6 route show default | sed 's/.* via \\([^ ]*\\).*/\\1/'")?;
    for server in [gateway.as_str(), at::RESOLVER6] {
        for transport in ["+notcp", "+tcp"] {
            let answer = pod.ok(&dig(&format!("{transport} @{server} example.test")))?;
            ensure!(answer.contains(at::EXAMPLE), "{answer}");
            ensure!(answer.contains(&format!("SERVER: {server}#53")), "{answer}");
        }
    }
    answered_by(
        &pod.sh(&get(&format!("-k https://{}/", at::EXAMPLE)))?,
        at::EXAMPLE,
    )?;
    pod.finish()?.expect(0)?;
    Ok(())
}

#[test]
fn the_resolver_is_asked_over_ipv6_too() -> Result<()> {
    let world = World::new()?;
    let done = world
        .run()?
        .dns(at::RESOLVER6)
        .allow("example.test")
        .script(&get("-4 https://example.test/"))?;
    assert_eq!(done.expect(0)?.split_whitespace().nth(1), Some(at::EXAMPLE));
    assert_eq!(
        world.arrived(at::RESOLVER, 53)?,
        0,
        "nobody asked the IPv4 one"
    );
    ensure!(world.arrived(at::RESOLVER6, 53)? > 0);
    Ok(())
}

#[test]
fn a_name_outside_rules_dns_is_refused_with_the_policy_named_and_never_leaves() -> Result<()> {
    let world = World::new()?;
    let text = policy(
        "only-example",
        &[
            &dns_only(&["*.example.test", "example.test"]),
            &to_name("example.test"),
        ],
    );
    let mut pod = world.run_with_dns()?.policy(&text)?.shell()?;
    answered_by(&pod.sh(&get("-4 https://example.test/"))?, at::EXAMPLE)?;
    let before = world.arrived(at::RESOLVER, 53)?;
    let answer = pod.sh(&dig("secret-in-a-name.evil.test"))?;
    ensure!(answer.stdout.contains("status: REFUSED"), "{answer:?}");
    ensure!(
        answer.stdout.contains("EDE: 15 (Blocked)"),
        "an extended error says why: {answer:?}"
    );
    ensure!(
        answer.stdout.contains("only-example"),
        "and names the policy: {answer:?}"
    );
    ensure!(
        pod.sh(&dig("+tcp evil.test"))?
            .stdout
            .contains("status: REFUSED")
    );
    assert_eq!(
        world.arrived(at::RESOLVER, 53)?,
        before,
        "refused names are not asked upstream"
    );
    let done = pod.finish()?;
    let report = done.report()?;
    let refusal = report
        .lookups
        .refused
        .iter()
        .find(|row| row.name == "secret-in-a-name.evil.test.");
    let refusal = refusal.expect("the refusal was reported");
    assert!(
        refusal.count >= 1 && !refusal.reason.is_empty(),
        "{refusal:?}"
    );
    done.says(&["secret-in-a-name.evil.test"])
}

#[test]
fn a_resolver_of_ones_own_choosing_teaches_nothing() -> Result<()> {
    let world = World::new()?;
    let anywhere =
        "- toEntities: [world]\n  toPorts:\n  - ports: [{ port: \"53\", protocol: ANY }]\n";
    let text = policy("own-resolver", &[DNS, anywhere, &to_name("example.test")]);
    let mut pod = world.run_with_dns()?.policy(&text)?.shell()?;
    for transport in ["+notcp", "+tcp"] {
        let lie = pod.ok(&dig(&format!(
            "+short {transport} @{} example.test",
            at::LIAR
        )))?;
        assert_eq!(
            lie,
            support::world::liar_answers(),
            "the answer itself passes"
        );
        refused(&pod.sh(&knock(&format!("https://{}/", at::EVIL)))?)?;
    }
    assert_eq!(world.arrived(at::EVIL, 443)?, 0);
    // The trusted one still teaches, and only what it said.
    answered_by(&pod.sh(&get("-4 https://example.test/"))?, at::EXAMPLE)?;
    refused(&pod.sh(&knock(&format!("https://{}/", at::EVIL)))?)?;
    pod.finish()?.expect(0)?;
    Ok(())
}

#[test]
fn a_resolver_that_policy_does_not_name_is_not_reached() -> Result<()> {
    let world = World::new()?;
    let mut pod = world.run_with_dns()?.allow("example.test").shell()?;
    for transport in ["+notcp", "+tcp"] {
        let answer = pod.sh(&format!(
            "dig +time=1 +tries=1 {transport} @{} example.test",
            at::LIAR
        ))?;
        ensure!(!answer.stdout.contains(at::EVIL), "{answer:?}");
    }
    // DNS over TLS is a port like any other.
    refused(&pod.sh(&connect(at::LIAR, 853))?)?;
    assert_eq!(world.arrived_at(at::LIAR)?, 0, "not one packet");
    answered_by(&pod.sh(&get("-4 https://example.test/"))?, at::EXAMPLE)?;
    pod.finish()?.expect(0)?;
    Ok(())
}

#[test]
fn a_name_that_points_at_the_machine_or_its_metadata_opens_neither() -> Result<()> {
    let world = World::new()?;
    let mut pod = world
        .run_with_dns()?
        .allow("loop.test:80")
        .allow("metadata.test:80")
        .shell()?;
    assert_eq!(
        pod.ok(&dig("+short metadata.test"))?,
        "169.254.169.254",
        "the answer passes"
    );
    refused(&pod.sh(&knock("http://metadata.test/"))?)?;
    let rows = pod.client(&world.host).json(&["fqdn", "cache", "list"])?;
    ensure!(
        !rows.to_string().contains("169.254.169.254"),
        "it was not learned: {rows}"
    );
    assert_eq!(world.arrived_at("169.254.169.254")?, 0);
    pod.finish()?.expect(0)?;
    Ok(())
}
