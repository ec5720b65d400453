//! What a test runs inside the pod where no ordinary program is fast or rude enough.
//!
//! In:  `cycles FIRST COUNT PORT`: for each fresh name, resolve it and connect at once; UDP and TCP
//!      DNS, IPv4 and IPv6 in turn. Begins when a line comes in on standard input.
//!      `pipeline NAME…`: all questions in one TCP segment, answers in whatever order they come.
//!      `flood FIRST COUNT`: questions over UDP without waiting.
//! Out: one line of JSON; status 1 when it could not go on.
//! Not here: counting packets (`support::capture`).

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{TcpStream, UdpSocket};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use netns::ask::{address, framed, long, next_message, resolver};
use netns::cycles;
use netns::wire::{self, Kind};
use support::{patience, world::race_name};

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

fn cycles(first: u32, count: u32, port: u16) -> Result<String> {
    std::io::stdin().read_line(&mut String::new())?;
    Ok(serde_json::to_string(&cycles::run(first, count, port)?)?)
}

fn pipeline(names: &[&str]) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&resolver()?, long())?;
    stream.set_read_timeout(Some(long()))?;
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
    let end = Instant::now() + patience(Duration::from_secs(3));
    while answered + refused < sent && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(5));
        drain(&mut answered, &mut refused);
    }
    Ok(format!(
        "{{\"sent\":{sent},\"answered\":{answered},\"refused\":{refused}}}"
    ))
}
