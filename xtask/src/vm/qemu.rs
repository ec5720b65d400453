//! Starts the guest, passes its output on, and ends it in time.
//!
//! In:  a kernel, the archive of a start, memory, seconds.
//! Out: every line of the command's standard output to the caller, its standard error to ours;
//!      the command's exit status.
//! Not here: what the guest runs (`guest`, `tests/vm/init`).

use std::{
    ffi::OsString,
    fs::{self, OpenOptions},
    io::{self, BufRead as _, BufReader},
    path::Path,
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;

use super::{guest::Run, kernel::Unpacked, tool::tool};

/// Starting and ending take this much beyond the command's own time, also where all is emulated.
const AROUND: Duration = Duration::from_secs(180);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How much of the console is shown when the guest did not come to its end.
const TAIL: usize = 40;

/// An oops is a failure, not something to go on after.
const CMDLINE: &str =
    "console=ttyS0 loglevel=4 panic=-1 oops=panic nowatchdog mitigations=off rdinit=/init";
/// The emulator keeps translated code by address: programs that always lie at the same one start
/// twice as fast. Reading another clock than the TSC and setting a timer before every sleep leave
/// the translated code, which costs a third of the time.
const CMDLINE_EMULATED: &str = " norandmaps tsc=reliable nohz=off highres=off";

/// Runs the guest to its end; the status its command ended with.
pub(super) fn run(
    kernel: &Unpacked,
    run: &Run,
    memory: &str,
    seconds: u64,
    on_line: impl FnMut(&[u8]) + Send,
) -> anyhow::Result<u8> {
    // setpriv: the guest must not outlive this program, however that ends.
    let mut command = tool("setpriv", "util-linux")?;
    let qemu = tool("qemu-system-x86_64", "qemu-system-x86")?;
    command
        .args(["--pdeathsig", "KILL", "--"])
        .arg(qemu.get_program())
        .args(arguments(kernel, run, memory))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().context("cannot start qemu")?;
    let output = child.stdout.take().context("no output to read")?;
    let mut errors = child.stderr.take().context("no errors to read")?;
    let limit = Instant::now() + Duration::from_secs(seconds) + AROUND;

    let (ended, heard) = thread::scope(|scope| {
        let reader = scope.spawn(move || lines(output, on_line));
        scope.spawn(move || io::copy(&mut errors, &mut io::stderr()));
        let ended = wait(&mut child, limit);
        (ended, reader.join())
    });
    let ended = ended?;
    heard.map_err(|_| anyhow::anyhow!("reading the guest's output failed"))??;
    let said = fs::read_to_string(run.status()).unwrap_or_default();
    verdict(said.trim(), seconds).map_err(|error| {
        let end = ended.map_or("had to be ended".to_owned(), |e| format!("ended with {e}"));
        anyhow::anyhow!("{error}; qemu {end}; {}", tail(&run.console()))
    })
}

/// What the guest wrote as its status.
fn verdict(said: &str, seconds: u64) -> anyhow::Result<u8> {
    if said == "late" {
        anyhow::bail!("the command did not end within {seconds} s");
    }
    said.parse().ok().context("no exit status came back")
}

fn arguments(kernel: &Unpacked, run: &Run, memory: &str) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = ["-nodefaults", "-no-user-config", "-no-reboot"]
        .map(OsString::from)
        .to_vec();
    let mut option = |name: &str, value: &str| {
        arguments.push(name.into());
        arguments.push(value.into());
    };
    let kvm = kvm();
    if kvm {
        option("-accel", "kvm");
    }
    option("-accel", "tcg,thread=multi");
    option("-machine", "q35");
    option("-cpu", "max,la57=off");
    option("-smp", "2");
    option("-m", memory);
    option("-display", "none");
    option("-kernel", &kernel.image.display().to_string());
    option("-initrd", &run.archive().display().to_string());
    option(
        "-append",
        &[CMDLINE, if kvm { "" } else { CMDLINE_EMULATED }].concat(),
    );
    option("-serial", &format!("file:{}", comma(&run.console())));
    option(
        "-virtfs",
        "local,path=/,mount_tag=root,security_model=none,readonly=on,multidevs=remap",
    );
    option("-device", "virtio-serial-pci");
    for (name, file) in [
        ("out", "/dev/stdout".to_owned()),
        ("err", "/dev/stderr".to_owned()),
        ("status", comma(&run.status())),
    ] {
        option("-chardev", &format!("file,id={name},path={file},append=on"));
        option(
            "-device",
            &format!("virtserialport,chardev={name},name={name}"),
        );
    }
    arguments
}

/// qemu's options are separated by commas; one inside a path is doubled.
fn comma(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

/// Whether the processor itself can run the guest. A /dev/kvm alone says too little: inside some
/// virtual machines it runs only kernels that were made for it.
pub(super) fn kvm() -> bool {
    let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    virtualises(&processor)
        && OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/kvm")
            .is_ok()
}

fn virtualises(cpuinfo: &str) -> bool {
    cpuinfo
        .lines()
        .filter_map(|line| line.strip_prefix("flags"))
        .any(|flags| {
            flags
                .split_whitespace()
                .any(|flag| flag == "vmx" || flag == "svm")
        })
}

/// Waits until `limit`, then ends the guest; its status, or nothing when it had to be ended.
fn wait(child: &mut Child, limit: Instant) -> io::Result<Option<std::process::ExitStatus>> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= limit {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// Bytes, not text: a test may print anything.
fn lines(from: impl io::Read, mut on_line: impl FnMut(&[u8])) -> io::Result<()> {
    let mut reader = BufReader::new(from);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line)? > 0 {
        on_line(&line);
        line.clear();
    }
    Ok(())
}

fn tail(console: &Path) -> String {
    let text = fs::read(console).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(TAIL);
    format!(
        "its console ({}) ends:\n{}",
        console.display(),
        lines.get(from..).unwrap_or_default().join("\n")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_status_is_a_status() {
        assert_eq!(verdict("0", 5).unwrap(), 0);
        assert_eq!(verdict("137", 5).unwrap(), 137);
        for said in ["", "late", "256", "ok"] {
            assert!(verdict(said, 5).is_err(), "{said}");
        }
    }

    #[test]
    fn hardware_virtualisation_is_a_flag_of_its_own() {
        assert!(virtualises("model name\t: x\nflags\t\t: fpu vmx sse\n"));
        assert!(virtualises("flags\t\t: fpu svm\n"));
        assert!(!virtualises(
            "model name\t: svm\nflags\t\t: fpu hypervisor vmmcall\n"
        ));
    }

    #[test]
    fn a_guest_that_does_not_end_is_ended() {
        let mut child = tool("sleep", "coreutils")
            .unwrap()
            .arg("600")
            .spawn()
            .unwrap();
        let ended = wait(&mut child, Instant::now() + Duration::from_millis(100)).unwrap();
        assert!(ended.is_none());
        assert!(child.try_wait().unwrap().is_some());
    }

    #[test]
    fn the_last_line_counts_without_its_end() {
        let mut seen = Vec::new();
        lines(&b"a\n\xff\nb"[..], |line| seen.push(line.to_vec())).unwrap();
        assert_eq!(seen, [b"a\n".to_vec(), b"\xff\n".to_vec(), b"b".to_vec()]);
    }
}
