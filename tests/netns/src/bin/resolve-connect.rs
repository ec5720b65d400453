//! What a test runs inside the pod where no ordinary program is fast or rude enough.
//!
//! In:  `cycles FIRST COUNT PORT`: for each fresh name, resolve it and connect at once; UDP and TCP
//!      DNS, IPv4 and IPv6 in turn. Begins when a line comes in on standard input.
//!      `pipeline NAME…`: all questions in one TCP segment, answers in whatever order they come.
//!      `flood FIRST COUNT`: questions over UDP without waiting.
//! Out: one line of JSON; status 1 when anything failed.
//! Not here: counting packets (`support::capture`).

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use netns::wire::{self, Kind};
use support::world::race_name;

const PATIENCE: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["cycles", first, count, port] => {
            numbers(first, count).and_then(|(first, count)| cycles(first, count, port.parse()?))
        }
        ["pipeline", names @ ..] => pipeline(names),
        ["flood", first, count] => {
            numbers(first, count).and_then(|(first, count)| flood(first, count))
        }
        _ => Err(anyhow::anyhow!(
            "usage: resolve-connect cycles|pipeline|flood …"
        )),
    };
    match result {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn numbers(first: &str, count: &str) -> Result<(u32, u32)> {
    Ok((first.parse()?, count.parse()?))
}

/// The resolver of the pod, as every program finds it.
fn resolver() -> Result<SocketAddr> {
    let text = std::fs::read_to_string("/etc/resolv.conf")?;
    let server = text
        .lines()
        .find_map(|line| line.strip_prefix("nameserver"))
        .context("no nameserver")?;
    Ok(SocketAddr::new(server.trim().parse()?, 53))
}

fn cycles(first: u32, count: u32, port: u16) -> Result<String> {
    let server = resolver()?;
    std::io::stdin().read_line(&mut String::new())?;
    let (mut failed, mut slowest) = (Vec::new(), Duration::ZERO);
    for number in first..first + count {
        let kind = if number % 2 == 0 { Kind::A } else { Kind::Aaaa };
        let name = race_name(number);
        let looked_up = if number / 2 % 2 == 0 {
            over_udp(server, &name, kind)
        } else {
            over_tcp(server, &name, kind)
        };
        let result = looked_up.and_then(|address| {
            let start = Instant::now();
            TcpStream::connect_timeout(&SocketAddr::new(address, port), PATIENCE)?;
            slowest = slowest.max(start.elapsed());
            Ok(())
        });
        if let Err(error) = result {
            failed.push(format!("{name} {kind:?}: {error:#}"));
        }
    }
    ensure!(
        failed.is_empty(),
        "{} of {count} cycles failed: {:?}",
        failed.len(),
        failed.first()
    );
    Ok(format!(
        "{{\"cycles\":{count},\"failed\":0,\"slowest_connect_us\":{}}}",
        slowest.as_micros()
    ))
}

fn over_udp(server: SocketAddr, name: &str, kind: Kind) -> Result<IpAddr> {
    let any: IpAddr = if server.is_ipv4() {
        [0, 0, 0, 0].into()
    } else {
        [0_u8; 16].into()
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send(&wire::query(1, name, kind))?;
    let mut buffer = [0; 2048];
    let length = socket.recv(&mut buffer).context("no answer over UDP")?;
    address(buffer.get(..length).unwrap_or_default())
}

fn over_tcp(server: SocketAddr, name: &str, kind: Kind) -> Result<IpAddr> {
    let mut stream = TcpStream::connect_timeout(&server, PATIENCE)
        .context("no TCP connection to the resolver")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&framed(&wire::query(1, name, kind)))?;
    address(&next_message(&mut stream).context("no answer over TCP")?)
}

fn address(message: &[u8]) -> Result<IpAddr> {
    let addresses = wire::addresses(message).context("an answer that cannot be read")?;
    addresses.first().copied().with_context(|| {
        format!(
            "an answer without addresses, code {:?}",
            wire::rcode(message)
        )
    })
}

fn framed(message: &[u8]) -> Vec<u8> {
    let mut bytes = u16::try_from(message.len())
        .unwrap_or(u16::MAX)
        .to_be_bytes()
        .to_vec();
    bytes.extend(message);
    bytes
}

fn next_message(stream: &mut TcpStream) -> Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message)?;
    Ok(message)
}

fn pipeline(names: &[&str]) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&resolver()?, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut bytes = Vec::new();
    for (number, name) in names.iter().enumerate() {
        bytes.extend(framed(&wire::query(u16::try_from(number)?, name, Kind::A)));
    }
    stream.write_all(&bytes)?;
    let mut answers = BTreeMap::new();
    while answers.len() < names.len() {
        let message = next_message(&mut stream)
            .with_context(|| format!("only {} of {} answers came", answers.len(), names.len()))?;
        let name = wire::id(&message)
            .and_then(|id| names.get(usize::from(id)))
            .context("an answer to nothing")?;
        if answers.insert(*name, address(&message)?).is_some() {
            bail!("two answers for `{name}`");
        }
    }
    let rows: Vec<String> = answers
        .iter()
        .map(|(name, address)| format!("\"{name}\":\"{address}\""))
        .collect();
    Ok(format!("{{{}}}", rows.join(",")))
}

fn flood(first: u32, count: u32) -> Result<String> {
    let socket = UdpSocket::bind(("0.0.0.0", 0))?;
    socket.connect(resolver()?)?;
    socket.set_nonblocking(true)?;
    let (mut sent, mut answered, mut refused) = (0_u32, 0_u32, 0_u32);
    let mut buffer = [0; 2048];
    let mut drain = |answered: &mut u32, refused: &mut u32| {
        while let Ok(length) = socket.recv(&mut buffer) {
            match buffer.get(..length).and_then(wire::rcode) {
                Some(0 | 3) => *answered += 1,
                _ => *refused += 1,
            }
        }
    };
    for number in first..first + count {
        let message = wire::query(u16::try_from(number % 65536)?, &race_name(number), Kind::A);
        if socket.send(&message).is_ok() {
            sent += 1;
        }
        drain(&mut answered, &mut refused);
    }
    let end = Instant::now() + Duration::from_secs(3);
    while answered + refused < sent && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(5));
        drain(&mut answered, &mut refused);
    }
    Ok(format!(
        "{{\"sent\":{sent},\"answered\":{answered},\"refused\":{refused}}}"
    ))
}
