//! The world itself, without namegate: what the other tests take for granted.

use anyhow::Result;
use support::{Netns, World, slowness, world::address as at};

fn curl(host: &Netns, world: &World, url: &str) -> Result<support::Output> {
    let bundle = world.certificate();
    support::process::output_of(
        host.command("curl")
            .args(["-sS", "--max-time", &(5 * slowness()).to_string(), url])
            .env("CURL_CA_BUNDLE", bundle),
    )
}

fn dig(host: &Netns, words: &[&str]) -> Result<String> {
    let server = format!("@{}", at::RESOLVER);
    let wait = format!("+time={}", 2 * slowness());
    host.output(
        "dig",
        &[&[server.as_str(), &wait, "+tries=1"], words].concat(),
    )?
    .ok("dig")
}

#[test]
fn names_servers_and_the_capture_answer_the_host() -> Result<()> {
    let world = World::new()?;
    let host = &world.host;
    for (name, address) in [
        ("example.test", at::EXAMPLE),
        ("github.com", at::GITHUB),
        ("n5999.race.test", "100.64.23.250"),
    ] {
        assert_eq!(dig(host, &["+short", name])?.trim(), address);
    }
    assert_eq!(dig(host, &["+short", "AAAA", "six.test"])?.trim(), at::SIX6);
    let chain = dig(host, &["+short", "www.chain.test"])?;
    assert_eq!(
        chain.lines().collect::<Vec<_>>(),
        ["mid.cdn.test.", "edge.cdn.test.", at::EDGE]
    );
    assert!(dig(host, &["dead.test"])?.contains("status: NXDOMAIN"));
    let truncated = dig(host, &["+ignore", "huge.test"])?;
    assert!(
        truncated.contains(" tc ") || truncated.contains("flags: qr aa tc"),
        "{truncated}"
    );
    assert_eq!(
        dig(host, &["+short", "huge.test"])?
            .lines()
            .filter(|line| line.starts_with("203."))
            .count(),
        120
    );
    let lie = host.output(
        "dig",
        &["+short", &format!("@{}", at::LIAR), "example.test"],
    )?;
    assert_eq!(lie.stdout.trim(), at::EVIL);

    for (name, address) in [
        ("example.test", at::EXAMPLE),
        ("a.b.example.test", at::DEEP),
        ("n1.race.test", "100.64.0.2"),
    ] {
        for (scheme, port) in [("https", 443), ("http", 80)] {
            let resolve = format!("{name}:{port}:{address}");
            let bundle = world.certificate();
            let output = support::process::output_of(
                host.command("curl")
                    .args([
                        "-sS",
                        "--max-time",
                        "5",
                        "--resolve",
                        &resolve,
                        &format!("{scheme}://{name}/"),
                    ])
                    .env("CURL_CA_BUNDLE", bundle),
            )?;
            assert_eq!(
                output.stdout.trim(),
                format!("{name} {address} {}", at::HOST4),
                "{output:?}"
            );
        }
    }
    let six = curl(host, &world, &format!("http://[{}]/", at::EXAMPLE6))?;
    assert!(six.stdout.contains(at::HOST6), "{six:?}");
    let echo = host.output(
        "bash",
        &[
            "-c",
            &format!("echo hello | socat -t1 - UDP4:{}:7", at::EXAMPLE),
        ],
    )?;
    assert_eq!(echo.stdout, "hello\n");

    assert!(world.arrived(at::EXAMPLE, 443)? > 0);
    assert_eq!(world.arrived(at::EVIL, 443)?, 0, "nobody connected there");
    Ok(())
}
