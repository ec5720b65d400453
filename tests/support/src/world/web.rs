//! The web and echo servers of the world.
//!
//! In:  a namespace and a folder for keys and configurations.
//! Out: nginx on 80, 443 and 8443 of every address, answering `host server-address client-address`,
//!      with certificates of an authority made for this world; socat echoing on port 7 and 5000.
//! Not here: names (`zone`).

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::address as at;
use crate::process::output_of;
use crate::wait::until_true;
use crate::{Netns, Process, tools};

const READY: Duration = Duration::from_secs(20);

/// Names that the certificate is good for.
const NAMES: &[&str] = &[
    "example.test",
    "*.example.test",
    "*.b.example.test",
    "evilexample.test",
    "*.chain.test",
    "*.cdn.test",
    "*.ttl.test",
    "brief.test",
    "six.test",
    "other.test",
    "evil.test",
    "*.many.test",
    "*.race.test",
    "github.com",
    "*.github.com",
    "*.githubusercontent.com",
    "api.stripe.com",
];

/// Starts everything.
pub(super) fn start(netns: &Netns, files: &Path) -> Result<Vec<Process>> {
    certificates(files)?;
    let mut servers = vec![nginx(netns, files)?];
    // One listener for both families each; the echo of UDP needs the address it answers from.
    let tcp = [
        "TCP6-LISTEN:7,ipv6only=0,fork,reuseaddr,backlog=64",
        "TCP6-LISTEN:5000,ipv6only=0,fork,reuseaddr,backlog=64",
    ];
    for listen in tcp {
        servers.push(Process::spawn(
            "socat",
            netns.command("socat").args([listen, "PIPE"]),
        )?);
    }
    let udp = [
        format!("UDP4-RECVFROM:7,bind={},fork", at::EXAMPLE),
        format!("UDP4-RECVFROM:7,bind={},fork", at::EVIL),
    ];
    for listen in &udp {
        servers.push(Process::spawn(
            "socat",
            netns.command("socat").args([listen, "PIPE"]),
        )?);
    }
    Ok(servers)
}

/// The authority's certificate.
pub(super) fn authority(files: &Path) -> PathBuf {
    files.join("authority.pem")
}

fn certificates(files: &Path) -> Result<()> {
    let names: Vec<String> = NAMES.iter().map(|name| format!("DNS:{name}")).collect();
    std::fs::write(
        files.join("names.txt"),
        format!("subjectAltName={}", names.join(",")),
    )?;
    let script = "
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj '/CN=authority of the tests' \
            -keyout authority.key -out authority.pem
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj '/CN=server' -keyout server.key -out server.csr
        openssl x509 -req -in server.csr -CA authority.pem -CAkey authority.key -set_serial 2 -days 2 -extfile names.txt -out server.pem";
    output_of(
        Command::new("bash")
            .args(["-e", "-c", script])
            .current_dir(files),
    )?
    .ok("openssl")
    .map(drop)
}

fn nginx(netns: &Netns, files: &Path) -> Result<Process> {
    let config = files.join("nginx.conf");
    std::fs::write(
        &config,
        format!(
            r#"daemon off;
worker_processes 1;
pid {files}/nginx.pid;
error_log stderr warn;
user root;
events {{ worker_connections 2048; }}
http {{
  access_log off;
  client_body_temp_path {files}/body;
  proxy_temp_path {files}/proxy;
  fastcgi_temp_path {files}/fastcgi;
  uwsgi_temp_path {files}/uwsgi;
  scgi_temp_path {files}/scgi;
  server {{
    listen 80 backlog=4096;
    listen [::]:80 backlog=4096;
    listen 443 ssl backlog=4096;
    listen [::]:443 ssl backlog=4096;
    listen 8443 ssl;
    listen [::]:8443 ssl;
    ssl_certificate {files}/server.pem;
    ssl_certificate_key {files}/server.key;
    default_type text/plain;
    location / {{ return 200 "$host $server_addr $remote_addr\n"; }}
  }}
}}
"#,
            files = files.display()
        ),
    )?;
    let program =
        tools::find("nginx").context("`nginx` is missing: run `scripts/setup --for test`")?;
    Process::spawn(
        "nginx",
        netns
            .command(program)
            .arg("-c")
            .arg(config)
            .arg("-e")
            .arg("stderr"),
    )
}

/// Waits until web and echo answer the host.
pub(super) fn wait_ready(host: &Netns, servers: &mut [Process]) -> Result<()> {
    let ports = [
        (at::EXAMPLE, 443),
        (at::EXAMPLE6, 443),
        (at::EXAMPLE, 80),
        (at::EXAMPLE, 7),
        (at::EXAMPLE, 5000),
    ];
    for (address, port) in ports {
        let target = std::net::SocketAddr::new(at::ip(address)?, port);
        until_true(READY, &format!("the server at {target}"), || {
            let connect =
                || std::net::TcpStream::connect_timeout(&target, Duration::from_secs(1)).is_ok();
            host.run(connect).unwrap_or(false)
        })?;
        for server in &mut *servers {
            server.check()?;
        }
    }
    Ok(())
}
