//! Resolvers that are gone, silent, or not to be believed.

use anyhow::{Result, ensure};
use netns::strange::{Send, Strange};
use netns::{answered_by, connect, dig, get, knock, refused};
use support::{World, slowness, world::address as at};

#[test]
fn an_unreachable_resolver_fails_lookups_and_opens_nothing() -> Result<()> {
    let world = World::new()?;
    for nobody in [at::NOBODY, "203.0.113.10:5999"] {
        let mut pod = world.run()?.dns(nobody).allow("example.test").shell()?;
        let answer = pod.sh("dig +time=2 +tries=1 +short example.test")?;
        ensure!(!answer.stdout.contains(at::EXAMPLE), "{answer:?}");
        let answer = pod.sh("dig +tcp +time=2 +tries=1 +short example.test")?;
        ensure!(!answer.stdout.contains(at::EXAMPLE), "{answer:?}");
        refused(&pod.sh(&connect(at::EXAMPLE, 443))?)?;
        ensure!(
            pod.client(&world.host).json(&["status"])?.is_object(),
            "the rest keeps working"
        );
        pod.finish()?.expect(0)?;
    }
    Ok(())
}

#[test]
fn the_second_resolver_is_asked_when_the_first_is_gone() -> Result<()> {
    let world = World::new()?;
    let mut pod = world
        .run()?
        .dns(at::NOBODY)
        .dns(at::RESOLVER)
        .allow("example.test")
        .shell()?;
    answered_by(
        &pod.sh(&format!(
            "curl -sS -4 --retry 3 --retry-connrefused --max-time {} https://example.test/",
            40 * slowness()
        ))?,
        at::EXAMPLE,
    )?;
    pod.finish()?.expect(0)?;
    Ok(())
}

#[test]
fn garbage_alone_answers_nothing_and_opens_nothing() -> Result<()> {
    let world = World::new()?;
    let evil = at::ip(at::EVIL)?;
    let script = vec![
        Send::Garbage,
        Send::CutShort,
        Send::Echo,
        Send::Oversized(evil),
        Send::WrongId(evil),
        Send::WrongQuestion(evil),
    ];
    let strange = Strange::start(&world.world, at::STRANGE, script)?;
    let mut pod = world
        .run()?
        .dns(at::STRANGE)
        .allow("example.test")
        .allow("elsewhere.test")
        .shell()?;
    for _ in 0..3 {
        let answer = pod.sh("dig +time=1 +tries=1 +short example.test")?;
        ensure!(
            !answer.stdout.lines().any(|line| line == at::EVIL),
            "{answer:?}"
        );
    }
    ensure!(strange.asked() >= 3, "it was asked");
    refused(&pod.sh(&connect(at::EVIL, 443))?)?;
    assert_eq!(world.arrived(at::EVIL, 443)?, 0);
    let rows = pod.client(&world.host).json(&["fqdn", "cache", "list"])?;
    ensure!(!rows.to_string().contains(at::EVIL), "{rows}");
    strange.stop()?;
    pod.finish()?.expect(0)?;
    Ok(())
}

#[test]
fn forged_replies_before_the_real_one_teach_nothing_and_the_real_one_still_counts() -> Result<()> {
    let world = World::new()?;
    let (evil, example) = (at::ip(at::EVIL)?, at::ip(at::EXAMPLE)?);
    let script = vec![
        Send::Garbage,
        Send::WrongId(evil),
        Send::WrongQuestion(evil),
        Send::WrongPort(evil),
        Send::WrongServer(evil, evil),
        Send::Honest(example),
        // And once it was answered: a second opinion.
        Send::Honest(evil),
    ];
    let strange = Strange::start(&world.world, at::STRANGE, script)?;
    let mut pod = world
        .run()?
        .dns(at::STRANGE)
        .allow("example.test")
        .allow("elsewhere.test")
        .shell()?;
    let answer = pod.ok(&dig("+short example.test"))?;
    assert_eq!(answer, at::EXAMPLE);
    answered_by(
        &pod.sh(&get(&format!("-k https://{}/", at::EXAMPLE)))?,
        at::EXAMPLE,
    )?;
    refused(&pod.sh(&knock(&format!("https://{}/", at::EVIL)))?)?;
    assert_eq!(world.arrived(at::EVIL, 443)?, 0);
    let rows = pod.client(&world.host).json(&["fqdn", "cache", "list"])?;
    ensure!(!rows.to_string().contains(at::EVIL), "{rows}");
    strange.stop()?;
    pod.finish()?.expect(0)?;
    Ok(())
}
