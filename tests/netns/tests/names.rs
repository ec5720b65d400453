//! Which names open what: exact names, patterns, ports, addresses nobody resolved.

use anyhow::{Result, ensure};
use netns::{answered_by, connect, dig, get, knock, refused};
use support::{World, world::address as at};

#[test]
fn exact_name_is_reached_over_https() -> Result<()> {
    let world = World::new()?;
    let done = world
        .run_with_dns()?
        .allow("example.test")
        .script(&get("-4 https://example.test/"))?;
    assert_eq!(
        done.expect(0)?.trim(),
        format!("example.test {} {}", at::EXAMPLE, at::HOST4)
    );
    let report = done.report()?;
    let name = report.name("example.test.").expect("the name was learned");
    assert_eq!(
        name.ips
            .iter()
            .find(|ip| *ip == at::EXAMPLE)
            .map(String::as_str),
        Some(at::EXAMPLE)
    );
    assert_eq!(name.selectors, ["example.test"]);
    let allowed = report
        .allowed_to(at::EXAMPLE, 443)
        .expect("a connection was counted");
    assert_eq!(
        (
            allowed.connections,
            allowed.protocol.as_str(),
            allowed.direction.as_str()
        ),
        (1, "TCP", "EGRESS")
    );
    assert!(
        allowed.names.contains(&"example.test.".to_owned()),
        "{allowed:?}"
    );
    assert!(
        !allowed.rules.is_empty(),
        "the rule behind it is named: {allowed:?}"
    );
    assert!(report.denied.is_empty(), "{report:?}");
    assert_eq!((report.exit_status, report.audit), (0, false));
    assert!(report.lookups.answered >= 1);
    Ok(())
}

#[test]
fn exact_name_does_not_cover_its_subdomains() -> Result<()> {
    let world = World::new()?;
    let done = world
        .run_with_dns()?
        .allow("example.test")
        .script(&knock("https://api.example.test/"))?;
    assert_ne!(done.status, 0, "{done:?}");
    assert_eq!(world.arrived(at::API, 443)?, 0, "not one packet got out");
    let report = done.report()?;
    let denied = report
        .denied_to(at::API, 443)
        .expect("the refusal was reported");
    assert_eq!(
        (denied.reason, denied.reason_text.as_str()),
        (133, "Policy denied")
    );
    assert!(
        denied.names.contains(&"api.example.test.".to_owned()),
        "{denied:?}"
    );
    assert!(denied.packets >= 1);
    done.says(&["api.example.test", at::API, "Policy denied"])
}

#[test]
fn star_covers_one_label_and_never_the_apex() -> Result<()> {
    let world = World::new()?;
    let mut pod = world.run_with_dns()?.allow("*.example.test").shell()?;
    answered_by(&pod.sh(&get("-4 https://api.example.test/"))?, at::API)?;
    // Two labels, the apex, and a name that merely ends in the same letters.
    for (name, address) in [
        ("a.b.example.test", at::DEEP),
        ("example.test", at::EXAMPLE),
        ("evilexample.test", at::EVIL),
    ] {
        ensure!(
            pod.ok(&dig(&format!("+short {name}")))?.contains(address),
            "`{name}` resolves"
        );
        refused(&pod.sh(&knock(&format!("-4 https://{name}/")))?)?;
        assert_eq!(world.arrived(address, 443)?, 0, "`{name}` stays closed");
    }
    pod.finish()?.expect(0)?;
    Ok(())
}

#[test]
fn double_star_covers_any_depth_and_never_the_apex() -> Result<()> {
    let world = World::new()?;
    let mut pod = world.run_with_dns()?.allow("**.example.test").shell()?;
    answered_by(&pod.sh(&get("-4 https://api.example.test/"))?, at::API)?;
    answered_by(&pod.sh(&get("-4 https://a.b.example.test/"))?, at::DEEP)?;
    for name in ["example.test", "evilexample.test"] {
        refused(&pod.sh(&knock(&format!("-4 https://{name}/")))?)?;
    }
    assert_eq!(
        (
            world.arrived(at::EXAMPLE, 443)?,
            world.arrived(at::EVIL, 443)?
        ),
        (0, 0)
    );
    pod.finish()?.expect(0)?;
    Ok(())
}

#[test]
fn apex_and_subdomains_together_take_two_selectors() -> Result<()> {
    let world = World::new()?;
    let mut pod = world
        .run_with_dns()?
        .allow("example.test")
        .allow("*.example.test")
        .shell()?;
    answered_by(&pod.sh(&get("-4 https://example.test/"))?, at::EXAMPLE)?;
    answered_by(&pod.sh(&get("-4 https://api.example.test/"))?, at::API)?;
    pod.finish()?.expect(0)?;
    Ok(())
}

#[test]
fn the_right_name_on_another_port_or_protocol_is_refused() -> Result<()> {
    let world = World::new()?;
    let mut pod = world.run_with_dns()?.allow("example.test").shell()?;
    answered_by(&pod.sh(&get("-4 https://example.test/"))?, at::EXAMPLE)?;
    refused(&pod.sh(&knock("-4 http://example.test/"))?)?;
    refused(&pod.sh(&knock("-4 https://example.test:8443/"))?)?;
    // 443/UDP is not 443/TCP.
    pod.sh("echo x > /dev/udp/example.test/443")?;
    assert_eq!(
        world.arrived(at::EXAMPLE, 80)? + world.arrived(at::EXAMPLE, 8443)?,
        0
    );
    ensure!(
        !world
            .crossed()?
            .iter()
            .any(|packet| packet.is_udp() && packet.to_port == 443),
        "UDP got out"
    );
    let done = pod.finish()?;
    let report = done.report()?;
    for (port, protocol) in [(80, "TCP"), (8443, "TCP")] {
        let denied = report.denied_to(at::EXAMPLE, port).expect("reported");
        assert_eq!((denied.reason, denied.protocol.as_str()), (133, protocol));
        let rule = denied
            .would_allow
            .as_ref()
            .expect("the rule for the right port comes close");
        assert!(
            rule.text.contains("example.test") && rule.text.contains("443"),
            "{rule:?}"
        );
    }
    assert!(
        report
            .denied
            .iter()
            .any(|denied| denied.protocol == "UDP" && denied.port == 443),
        "{report:?}"
    );
    Ok(())
}

#[test]
fn a_port_and_protocol_of_ones_own() -> Result<()> {
    let world = World::new()?;
    let mut pod = world
        .run_with_dns()?
        .allow("example.test:80")
        .allow("example.test:7/UDP")
        .shell()?;
    answered_by(&pod.sh(&get("-4 http://example.test/"))?, at::EXAMPLE)?;
    let echoed = pod.sh("echo over udp | timeout 5 socat -t2 - UDP4:example.test:7")?;
    assert_eq!(echoed.stdout, "over udp");
    refused(&pod.sh(&knock("-4 https://example.test/"))?)?;
    refused(&pod.sh(&connect(at::EXAMPLE, 7))?)?;
    pod.finish()?.expect(0)?;
    Ok(())
}

#[test]
fn an_address_nobody_resolved_is_refused_until_somebody_does() -> Result<()> {
    let world = World::new()?;
    let mut pod = world.run_with_dns()?.allow("example.test").shell()?;
    for address in [
        at::EXAMPLE.to_owned(),
        format!("[{}]", at::EXAMPLE6),
        at::EVIL.to_owned(),
    ] {
        refused(&pod.sh(&knock(&format!("https://{address}/")))?)?;
    }
    assert_eq!(
        world.arrived(at::EXAMPLE, 443)?
            + world.arrived(at::EXAMPLE6, 443)?
            + world.arrived(at::EVIL, 443)?,
        0
    );
    // The same address, once its name was asked for.
    pod.ok(&dig("+short example.test"))?;
    answered_by(
        &pod.sh(&get(&format!("-k https://{}/", at::EXAMPLE)))?,
        at::EXAMPLE,
    )?;
    let done = pod.finish()?;
    let report = done.report()?;
    let denied = report.denied_to(at::EVIL, 443).expect("reported");
    assert_eq!(
        (denied.reason, denied.names.len()),
        (133, 0),
        "no name is known for it: {denied:?}"
    );
    assert!(report.denied_to(at::EXAMPLE6, 443).is_some(), "IPv6 too");
    Ok(())
}

#[test]
fn mixed_case_is_kept_in_answers_and_ignored_in_matching() -> Result<()> {
    let world = World::new()?;
    let mut pod = world.run_with_dns()?.allow("Example.TEST").shell()?;
    let answer = pod.ok(&dig("+noall +question +answer eXaMpLe.TeSt"))?;
    assert_eq!(
        answer.matches("eXaMpLe.TeSt.").count(),
        2,
        "question and answer keep their case: {answer}"
    );
    answered_by(
        &pod.sh(&get(&format!("-k https://{}/", at::EXAMPLE)))?,
        at::EXAMPLE,
    )?;
    answered_by(&pod.sh(&get("-4 https://EXAMPLE.test/"))?, at::EXAMPLE)?;
    pod.finish()?.expect(0)?;
    Ok(())
}

#[test]
fn a_cname_chain_belongs_to_the_name_that_was_asked() -> Result<()> {
    let world = World::new()?;
    let done = world
        .run_with_dns()?
        .allow("www.chain.test")
        .script(&get("-4 https://www.chain.test/"))?;
    assert_eq!(done.expect(0)?.split_whitespace().nth(1), Some(at::EDGE));
    let report = done.report()?;
    assert_eq!(
        report
            .name("www.chain.test.")
            .map(|name| name.ips.as_slice()),
        Some([at::EDGE.to_owned()].as_slice())
    );

    // Allowing only the end of the chain does not allow the alias that leads there.
    let mut pod = world.run_with_dns()?.allow("edge.cdn.test").shell()?;
    refused(&pod.sh(&knock("-4 https://www.chain.test/"))?)?;
    answered_by(&pod.sh(&get("-4 https://edge.cdn.test/"))?, at::EDGE)?;
    pod.finish()?.expect(0)?;
    Ok(())
}

#[test]
fn a_name_that_does_not_exist_is_told_so() -> Result<()> {
    let world = World::new()?;
    let mut pod = world.run_with_dns()?.allow("*.example.test").shell()?;
    ensure!(
        pod.ok(&dig("dead.example.test"))?
            .contains("status: NXDOMAIN")
    );
    ensure!(
        pod.sh(&get("https://dead.example.test/"))?.status == 6,
        "curl cannot resolve it"
    );
    // No address of that kind is an answer too.
    let answer = pod.ok(&dig("AAAA api.example.test"))?;
    ensure!(
        answer.contains("status: NOERROR") && answer.contains("ANSWER: 0"),
        "{answer}"
    );
    pod.finish()?.expect(0)?;
    Ok(())
}
