//! The resolver files the command reads: resolv.conf and nsswitch.conf.
//!
//! In:  the host's files, the gateway's address.
//! Out: copies over them that ask the gateway, and nobody by another way.
//! Not here: answering (`dnsproxy`).

use std::{fs, net::Ipv4Addr, path::Path};

use nix::mount::MsFlags;

use super::{
    PodError,
    mounts::{bind, step, tmpfs},
};

const RESOLV: &str = "/etc/resolv.conf";
const NSSWITCH: &str = "/etc/nsswitch.conf";
/// Where the copies live inside the pod.
const OURS: &str = "/run/namegate";

/// Checked on the host too, so that the error comes before anything is built.
pub(crate) fn check() -> Result<(), PodError> {
    let path = Path::new(RESOLV);
    let problem = match (fs::symlink_metadata(path), fs::metadata(path)) {
        (Err(_), _) => "does not exist".to_owned(),
        (Ok(_), Err(_)) => format!(
            "is a link to `{}`, which does not exist",
            fs::read_link(path).unwrap_or_default().display()
        ),
        (Ok(_), Ok(meta)) if !meta.is_file() => "is not a file".to_owned(),
        _ => return Ok(()),
    };
    Err(PodError::NoResolvConf { problem })
}

/// The texts to install.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Files {
    resolv: String,
    nsswitch: Option<String>,
}

impl Files {
    pub(crate) fn read(nameserver: Ipv4Addr) -> Result<Self, String> {
        check().map_err(|error| error.to_string())?;
        let host = step("read /etc/resolv.conf", fs::read(RESOLV))?;
        let nsswitch = fs::read(NSSWITCH).ok();
        Ok(Self {
            resolv: resolv_conf(&String::from_utf8_lossy(&host), nameserver),
            nsswitch: nsswitch.and_then(|text| nsswitch_conf(&String::from_utf8_lossy(&text))),
        })
    }
}

pub(crate) fn install(files: &Files) -> Result<(), String> {
    let ours = Path::new(OURS);
    step("make a place for resolv.conf", fs::create_dir_all(ours))?;
    step(
        "make a place for resolv.conf",
        tmpfs(ours, "mode=755,size=1m", MsFlags::empty()),
    )?;
    let mut copies = vec![(RESOLV, "resolv.conf", &files.resolv)];
    if let Some(nsswitch) = &files.nsswitch {
        copies.push((NSSWITCH, "nsswitch.conf", nsswitch));
    }
    for (target, name, text) in copies {
        let copy = ours.join(name);
        step("write a resolver file", fs::write(&copy, text))?;
        bind(&copy, Path::new(target))?;
    }
    Ok(())
}

/// The gateway as the only server; search list and options as on the host.
fn resolv_conf(host: &str, nameserver: Ipv4Addr) -> String {
    let kept = host.lines().filter(|line| {
        let word = line.split_whitespace().next();
        matches!(word, Some("search" | "domain" | "options" | "sortlist"))
    });
    let mut text = format!("nameserver {nameserver}\n");
    for line in kept {
        text.push_str(line.trim());
        text.push('\n');
    }
    text
}

/// Without the modules that ask systemd-resolved, machined or mDNS: `None` when nothing has to change. An action like
/// `[!UNAVAIL=return]` belongs to the module before it and goes with it; `dns` must remain or names stop resolving.
fn nsswitch_conf(host: &str) -> Option<String> {
    let drop_word =
        |word: &str| matches!(word, "resolve" | "mymachines") || word.starts_with("mdns");
    let mut changed = false;
    let lines: Vec<String> = host
        .lines()
        .map(|line| {
            let content = line.split('#').next().unwrap_or_default();
            let Some((key, modules)) = content.split_once(':') else {
                return line.to_owned();
            };
            if key.trim() != "hosts" || !modules.split_whitespace().any(drop_word) {
                return line.to_owned();
            }
            changed = true;
            let mut kept: Vec<&str> = Vec::new();
            let mut dropping = false;
            let mut in_action = false;
            for word in modules.split_whitespace() {
                let action = in_action || word.starts_with('[');
                if !action {
                    dropping = drop_word(word);
                }
                in_action = action && !word.ends_with(']');
                if !dropping {
                    kept.push(word);
                }
            }
            if !kept.contains(&"dns") {
                kept.push("dns");
            }
            format!("{}: {}", key.trim(), kept.join(" "))
        })
        .collect();
    changed.then(|| lines.join("\n") + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_replaced_and_the_rest_kept() {
        let host = "# comment\nnameserver 192.0.2.1\nnameserver 192.0.2.2\nsearch a.test b.test\n options ndots:2\n";
        assert_eq!(
            resolv_conf(host, Ipv4Addr::new(198, 18, 0, 5)),
            "nameserver 198.18.0.5\nsearch a.test b.test\noptions ndots:2\n"
        );
    }

    #[test]
    fn resolve_and_its_action_are_dropped() {
        let host = "passwd: files systemd\nhosts: mymachines resolve [!UNAVAIL=return] files myhostname dns # x\n";
        assert_eq!(
            nsswitch_conf(host).unwrap(),
            "passwd: files systemd\nhosts: files myhostname dns\n"
        );
    }

    #[test]
    fn mdns_is_dropped_and_dns_is_added_when_it_was_only_implied() {
        assert_eq!(
            nsswitch_conf("hosts: files mdns4_minimal [NOTFOUND=return] resolve\n").unwrap(),
            "hosts: files dns\n"
        );
        assert_eq!(
            nsswitch_conf("hosts: files resolve [ !UNAVAIL = return ] dns\n").unwrap(),
            "hosts: files dns\n"
        );
    }

    #[test]
    fn a_plain_nsswitch_is_left_alone() {
        assert_eq!(nsswitch_conf("hosts: files dns\n"), None);
        assert_eq!(nsswitch_conf(""), None);
    }
}
