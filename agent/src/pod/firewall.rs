//! namegate's own nftables table: masquerading for the pod, owned by a process.
//!
//! In:  the pod's addresses and link.
//! Out: [`OwnTable`]; the table carries the `owner` flag and ends with the nft process that made it.
//! Not here: other people's tables (`foreign`, `xtables`).
//!
//! The nft process ends when its standard input does, and only this process holds the other end. However namegate
//! ends, the kernel then removes the table.

use std::{
    io::{Read as _, Write as _},
    path::PathBuf,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use super::{PodError, slots::AddressPlan, tools};

const READY: Duration = Duration::from_secs(10);

/// The table, as long as this value lives.
#[derive(Debug)]
pub(crate) struct OwnTable {
    holder: Child,
    name: String,
}

impl OwnTable {
    /// Installs the table for `link`. `turned_on` are the interfaces that forward only because of us.
    pub(crate) fn install(
        link: &str,
        plan: &AddressPlan,
        turned_on: &[String],
    ) -> Result<Self, PodError> {
        let program = tools::nft()?;
        wait_until_free(&program, link)?;
        let script = script(link, plan, turned_on);
        let mut holder = tools::detached(&program)
            .arg("-i")
            .stdin(Stdio::piped())
            .spawn()
            .map_err(|source| PodError::Start {
                what: "nft",
                source,
            })?;
        if let Some(stdin) = holder.stdin.as_mut() {
            stdin
                .write_all(script.as_bytes())
                .map_err(|source| PodError::Start {
                    what: "nft -i",
                    source,
                })?;
        }
        let mut table = Self {
            holder,
            name: link.to_owned(),
        };
        table.wait_until_there(&script)?;
        Ok(table)
    }

    /// `nft -i` reports nothing on success, so the table is read back by another nft.
    fn wait_until_there(&mut self, script: &str) -> Result<(), PodError> {
        let program = tools::nft()?;
        let began = Instant::now();
        loop {
            let listed = tools::output(&program, &["list", "table", "inet", &self.name]);
            let missing = match listed {
                Ok(text) if text.contains("masquerade") => return Ok(()),
                Ok(_) => "the table has no rules".to_owned(),
                Err(error) => error.to_string(),
            };
            if began.elapsed() > READY || !matches!(self.holder.try_wait(), Ok(None)) {
                let said = self.finish();
                return Err(PodError::Firewall {
                    command: format!("nft -i <<< {}", script.trim()),
                    reason: if said.is_empty() { missing } else { said },
                });
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Closes the table's life line and waits for the kernel to have removed it.
    fn finish(&mut self) -> String {
        drop(self.holder.stdin.take());
        let mut said = String::new();
        if let Some(stderr) = self.holder.stderr.take() {
            let _ = stderr.take(4096).read_to_string(&mut said);
        }
        let _ = self.holder.wait();
        said.trim().to_owned()
    }
}

impl Drop for OwnTable {
    fn drop(&mut self) {
        self.finish();
    }
}

/// A run that was killed frees its link a moment before its nft ends and takes the table of that name with it.
fn wait_until_free(program: &PathBuf, link: &str) -> Result<(), PodError> {
    let began = Instant::now();
    while tools::output(program, &["list", "table", "inet", link]).is_ok() {
        if began.elapsed() > READY {
            return Err(PodError::Firewall {
                command: format!("nft add table inet {link}"),
                reason: "a table of that name exists and is not namegate's".to_owned(),
            });
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// One line: `nft -i` reads commands line by line.
fn script(link: &str, plan: &AddressPlan, turned_on: &[String]) -> String {
    let mut masquerade = format!(
        "ip saddr {} oifname != \"{link}\" masquerade; ",
        plan.v4.pod
    );
    if let Some(v6) = plan.v6 {
        masquerade += &format!("ip6 saddr {} oifname != \"{link}\" masquerade; ", v6.pod);
    }
    // Foreign chains accept what leaves towards the pod without looking at its state, because a table managed by
    // iptables-nft must not contain expressions iptables cannot read; the state is checked here.
    let mut forward = format!("oifname \"{link}\" ct state != {{ established, related }} drop; ");
    if !turned_on.is_empty() {
        // A host that was no router does not become one between its own networks.
        let set = turned_on
            .iter()
            .map(|name| format!("\"{name}\""))
            .collect::<Vec<_>>()
            .join(", ");
        forward += &format!("iifname {{ {set} }} oifname {{ {set} }} drop; ");
    }
    format!(
        "add table inet {link} {{ flags owner; \
         chain forward {{ type filter hook forward priority filter - 5; policy accept; {forward}}}; \
         chain postrouting {{ type nat hook postrouting priority srcnat; policy accept; {masquerade}}}; }}\n"
    )
}
