//! Ways out through other processes: namespaces, privileges, what is inherited, what can be seen.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    process::{Command, Stdio},
};

use anyhow::{Result, ensure};
use escape::{Attack, NOBODY};
use support::{Netns, Process, process::output_of};

const NOT_PERMITTED: &str = "Operation not permitted";

#[test]
fn nsenter_into_the_pods_init() -> Result<()> {
    Attack::new("nsenter --target 1 --net --mount echo ESCAPED 2>&1; true")
        .alone()?
        .refused("Permission denied")
}

#[test]
fn nsenter_as_root() -> Result<()> {
    let attack = Attack::new("nsenter --target 1 --net --mount echo ESCAPED 2>&1; true").as_root();
    attack.alone()?.refused(NOT_PERMITTED).or_else(|_| {
        let again =
            Attack::new("nsenter --target 1 --net --mount echo ESCAPED 2>&1; true").as_root();
        again.alone()?.refused("Permission denied")
    })
}

/// Named namespaces of the machine are not in sight.
#[test]
fn named_namespaces() -> Result<()> {
    let other = Netns::new("other")?;
    let script = format!(
        "nsenter --net={} echo ESCAPED 2>&1; true",
        other.path().display()
    );
    Attack::new(&script)
        .alone()?
        .refused("No such file or directory")
}

/// A user namespace gives every capability over what it makes itself, and over nothing of the pod's.
#[test]
fn unshare_user_and_network() -> Result<()> {
    let script = "unshare -Urn bash -c 'ip -br link | grep -c -v ^lo; ip link add x type veth 2>&1 && echo inside'";
    Attack::new(script).alone()?.wrote("0\ninside")
}

#[test]
fn unshare_then_touch_the_pods_interface() -> Result<()> {
    Attack::new("unshare -Ur ip link set eth0 down 2>&1 && echo ESCAPED")
        .alone()?
        .refused(NOT_PERMITTED)
}

/// Mounts that hide something come locked into a nested namespace.
#[test]
fn unshare_then_uncover_run() -> Result<()> {
    Attack::new("unshare -Urm umount /run 2>&1 && echo ESCAPED")
        .alone()?
        .refused("umount: /run")
}

#[test]
fn unshare_then_a_fresh_proc() -> Result<()> {
    Attack::new("unshare -Urmpf mount -t proc proc /proc 2>&1 && echo ESCAPED")
        .alone()?
        .refused("denied")
}

#[test]
fn sudo() -> Result<()> {
    Attack::new("sudo -n echo ESCAPED 2>&1")
        .alone()?
        .refused("no new privileges")
}

#[test]
fn setuid_helper() -> Result<()> {
    let files = tempfile::tempdir()?;
    fs::set_permissions(files.path(), fs::Permissions::from_mode(0o755))?;
    let helper = files.path().join("helper");
    fs::copy("/bin/bash", &helper)?;
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o4755))?;
    let script = format!("{} -p -c 'echo $EUID'", helper.display());
    let outside = Command::new(&helper)
        .args(["-p", "-c", "echo $EUID"])
        .uid(NOBODY)
        .gid(NOBODY)
        .output()?;
    ensure!(
        outside.stdout == b"0\n",
        "the helper has to work outside, or it proves nothing"
    );
    Attack::new(&script).alone()?.wrote("65534")
}

#[test]
fn capabilities_are_gone_for_good() -> Result<()> {
    let script = "grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status | tr -s '\\t\\n' '  '";
    let none = "0000000000000000";
    Attack::new(script).alone()?.wrote(&format!(
        "CapInh: {none} CapPrm: {none} CapEff: {none} CapBnd: {none} CapAmb: {none} NoNewPrivs: 1 Seccomp: 2"
    ))
}

/// A program of the same user on the machine: the most that process ids alone would protect.
fn sibling() -> Result<Process> {
    Process::spawn(
        "sibling",
        Command::new("sleep").arg("120").uid(NOBODY).gid(NOBODY),
    )
}

#[test]
fn ptrace_of_a_sibling() -> Result<()> {
    let sibling = sibling()?;
    let number = if cfg!(target_arch = "x86_64") {
        101
    } else {
        117
    };
    let program = format!(
        "print syscall({number}, 16, {}, 0, 0) == 0 ? \"ESCAPED\" : \"refused: $!\"",
        sibling.pid()
    );
    Attack::perl(&program).alone()?.refused("No such process")
}

#[test]
fn signals_to_a_sibling() -> Result<()> {
    let sibling = sibling()?;
    Attack::new(&format!("kill -9 {} 2>&1 && echo ESCAPED", sibling.pid()))
        .alone()?
        .refused("No such process")
}

/// The processes in sight are the pod's: init, the shell and what it starts.
#[test]
fn proc_of_others() -> Result<()> {
    let sibling = sibling()?;
    let script = format!(
        "ls -d /proc/[0-9]* | wc -l; cat /proc/{}/cmdline 2>&1; cat /proc/1/environ 2>&1",
        sibling.pid()
    );
    let outcome = Attack::new(&script).alone()?;
    outcome.refused("/proc/1/environ: Permission denied")?;
    outcome.refused("cmdline: No such file or directory")?;
    let seen: usize = outcome
        .everything()
        .lines()
        .next()
        .unwrap_or_default()
        .trim()
        .parse()?;
    ensure!(seen <= 4, "{seen} processes are in sight");
    Ok(())
}

/// A second /proc of the machine shows every process, and through its `root` everything that is masked.
#[test]
fn a_second_proc() -> Result<()> {
    let host = Netns::new("host")?;
    let files = tempfile::tempdir()?;
    fs::set_permissions(files.path(), fs::Permissions::from_mode(0o755))?;
    let sibling = sibling()?;
    let script = format!(
        "ls {0}; cat {0}/{1}/cmdline && echo ESCAPED",
        files.path().display(),
        sibling.pid()
    );
    let (run, script) = Attack::new(&script).run_on(&host)?;
    let (namegate, _held, _) = run.prepare(&["bash", "-c", &script])?;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "bash", "-c"]);
    command
        .arg("mount -t proc proc \"$0\" && ls \"$0\"/self/status && exec \"$@\"")
        .arg(files.path());
    command
        .arg(namegate.get_program())
        .args(namegate.get_args())
        .current_dir("/");
    command.envs(
        namegate
            .get_envs()
            .filter_map(|(key, value)| Some((key, value?))),
    );
    let output = output_of(&mut command)?;
    ensure!(
        output.stdout.contains("/self/status"),
        "there was no second /proc: {}",
        output.stderr
    );
    ensure!(!output.stdout.contains("ESCAPED"), "{}", output.stdout);
    ensure!(
        output.stderr.contains("cmdline: No such file"),
        "{}",
        output.stderr
    );
    Ok(())
}

/// A connection, a network namespace and a directory, open in the process that starts namegate.
#[test]
fn inherited_descriptors() -> Result<()> {
    let host = Netns::new("host")?;
    let other = Netns::new("other")?;
    let program = "use POSIX; for (0..1023) { my $d = POSIX::dup($_); if (defined $d) { print \"$_ \"; POSIX::close($d) } }";
    let (run, script) = Attack::perl(program).run_on(&host)?;
    let (namegate, _held, _) = run.prepare(&["bash", "-c", &script])?;
    let mut command = Command::new("bash");
    command.arg("-c").arg(
        "coproc ncat -l 127.0.0.1 47011 >/dev/null; sleep 0.5; exec 7<>/dev/tcp/127.0.0.1/47011 8<\"$0\" 9</ 300<>/dev/null; \
         ls /proc/$$/fd >&2; exec \"$@\"",
    );
    command
        .arg(other.path())
        .arg(namegate.get_program())
        .args(namegate.get_args());
    command.envs(
        namegate
            .get_envs()
            .filter_map(|(key, value)| Some((key, value?))),
    );
    let output = output_of(command.current_dir("/").stdin(Stdio::null()))?;
    for number in ["7", "8", "9", "300"] {
        ensure!(
            output.stderr.lines().any(|line| line == number),
            "{number} was not open: {}",
            output.stderr
        );
    }
    ensure!(
        output.stdout.trim() == "0 1 2",
        "the command has {}: {}",
        output.stdout,
        output.stderr
    );
    Ok(())
}

/// With `--allow-sudo` the line is drawn elsewhere: privileges can be gained, up to a container's.
#[test]
fn allow_sudo_still_cuts_the_bounding_set() -> Result<()> {
    let script = "grep -E '^(CapBnd|NoNewPrivs)' /proc/self/status | tr -s '\\t\\n' '  '";
    Attack::new(script)
        .flag("--allow-sudo")
        .alone()?
        .wrote("CapBnd: 00000000a00405fb NoNewPrivs: 0")
}

#[test]
fn the_command_dies_with_everything_it_started() -> Result<()> {
    let mark = format!("93{}", std::process::id());
    Attack::new(&format!(
        "setsid sleep {mark} & disown; sleep 0.2; echo started"
    ))
    .alone()?
    .wrote("started")?;
    let alive = Command::new("pgrep")
        .args(["-f", &format!("sleep {mark}")])
        .output()?;
    ensure!(
        !alive.status.success(),
        "a daemonized child outlived the command"
    );
    Ok(())
}
