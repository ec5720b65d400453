//! Ways out through daemons: their sockets are not there, or lead nowhere.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use escape::{Attack, Listener};
use support::{Netns, wait};

/// Connects to a unix socket and says what happened.
fn connect(path: &Path) -> Attack {
    Attack::perl(&format!(
        "use Socket; socket(my $s, 1, 1, 0) or die; \
         print connect($s, pack_sockaddr_un(\"{}\")) ? \"ESCAPED\" : \"refused: $!\"",
        path.display()
    ))
}

/// The socket exists, works outside, and cannot be reached from inside.
fn masked(path: &str) -> Result<()> {
    let path = Path::new(path);
    let ours = Listener::at(path)?;
    if let Some(listener) = &ours {
        listener.self_test()?;
        wait::until_true(Duration::from_secs(30), "the listener to count", || {
            listener.reached() >= 1
        })?;
    }
    connect(path).alone()?.refused("refused: ")?;
    // The C library of every process outside asks nscd, so its visitors say nothing.
    if let Some(listener) = &ours
        && !path.to_string_lossy().contains("nscd")
    {
        ensure!(
            listener.reached() == 1,
            "{} was reached from inside",
            path.display()
        );
    }
    Ok(())
}

macro_rules! rows {
    ($($name:ident: $($path:expr),+;)*) => {$(
        #[test]
        fn $name() -> Result<()> {
            for path in [$($path),+] {
                masked(path).with_context(|| format!("{path}"))?;
            }
            Ok(())
        }
    )*};
}

rows! {
    docker: "/run/docker.sock", "/var/run/docker.sock";
    containerd: "/run/containerd/containerd.sock", "/run/k3s/containerd/containerd.sock";
    crio: "/run/crio/crio.sock";
    podman: "/run/podman/podman.sock", "/run/user/65534/podman/podman.sock";
    dbus_system: "/run/dbus/system_bus_socket", "/var/run/dbus/system_bus_socket";
    dbus_session: "/run/user/65534/bus";
    systemd_manager: "/run/systemd/private", "/run/user/65534/systemd/private";
    systemd_notify: "/run/systemd/notify";
    systemd_userdb: "/run/systemd/userdb/io.systemd.DynamicUser";
    systemd_resolved: "/run/systemd/resolve/io.systemd.Resolve", "/run/systemd/resolve/io.systemd.Resolve.Monitor";
    nscd: "/run/nscd/socket", "/var/run/nscd/socket";
    snapd: "/run/snapd.socket", "/run/snapd-snap.socket";
    libvirt: "/run/libvirt/libvirt-sock";
    lxd: "/var/lib/lxd/unix.socket", "/var/snap/lxd/common/lxd/unix.socket";
    incus: "/var/lib/incus/unix.socket";
    x11: "/tmp/.X11-unix/X77";
    tmux: "/tmp/tmux-65534/default";
    a_daemon_nobody_knows: "/run/namegate-escape/unknown/some.sock";
}

/// What listens outside of /run is found through the kernel's table.
#[test]
fn a_listener_in_tmp() -> Result<()> {
    let files = tempfile::tempdir()?;
    fs::set_permissions(files.path(), fs::Permissions::from_mode(0o755))?;
    let path = files.path().join("agent.sock");
    let listener = Listener::at(&path)?.context("the path is taken")?;
    connect(&path).alone()?.refused("refused: ")?;
    ensure!(listener.reached() == 0);
    Ok(())
}

/// A daemon that restarts unlinks its socket, which takes a mount on it away everywhere.
#[test]
fn a_daemon_that_restarts() -> Result<()> {
    let path = PathBuf::from(format!(
        "/run/namegate-escape-{}/daemon.sock",
        std::process::id()
    ));
    let first = Listener::at(&path)?.context("the path is taken")?;
    let program = format!(
        "use Socket; $| = 1; print \"ready\\n\"; <STDIN>; socket(my $s, 1, 1, 0) or die; \
         print connect($s, pack_sockaddr_un(\"{}\")) ? \"ESCAPED\" : \"refused: $!\"",
        path.display()
    );
    let host = Netns::new("host")?;
    let (run, script) = Attack::perl(&program).run_on(&host)?;
    let (mut command, _files, _) = run.prepare(&["bash", "-c", &script])?;
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut output = std::io::BufReader::new(child.stdout.take().context("stdout")?);
    let mut line = String::new();
    std::io::BufRead::read_line(&mut output, &mut line)?;
    ensure!(line == "ready\n", "the attack said `{line}`");
    drop(first);
    let second = Listener::at(&path)?.context("the path is taken")?;
    second.self_test()?;
    drop(child.stdin.take());
    line.clear();
    std::io::BufRead::read_line(&mut output, &mut line)?;
    child.wait()?;
    ensure!(line.starts_with("refused: "), "the attack said `{line}`");
    Ok(())
}

/// A working directory is a way to what was there before the masks; it is entered anew after them.
#[test]
fn a_relative_path_from_run() -> Result<()> {
    let path = PathBuf::from(format!(
        "/run/namegate-escape-cwd-{}/daemon.sock",
        std::process::id()
    ));
    let listener = Listener::at(&path)?.context("the path is taken")?;
    let directory = path.parent().context("parent")?.to_owned();
    connect(Path::new("daemon.sock"))
        .from(directory)
        .alone()?
        .refused("refused: ")?;
    ensure!(listener.reached() == 0);
    Ok(())
}

/// The namespace that holds abstract names is the network's.
#[test]
fn abstract_socket() -> Result<()> {
    let host = Netns::new("host")?;
    let name = format!("namegate-escape-{}", std::process::id());
    let listener = host.run(|| Listener::abstract_name(&name))??;
    let program = format!(
        "use Socket; socket(my $s, 1, 1, 0) or die; \
         print connect($s, pack(\"Sa*\", 1, \"\\0{name}\")) ? \"ESCAPED\" : \"refused: $!\""
    );
    let outside = output_in(&host, &program)?;
    ensure!(outside == "ESCAPED", "from outside: {outside}");
    Attack::perl(&program)
        .on(&host)?
        .refused("Connection refused")?;
    wait::until_true(Duration::from_secs(30), "the outside connection", || {
        listener.reached() == 1
    })
}

fn output_in(host: &Netns, program: &str) -> Result<String> {
    host.output("perl", &["-e", program])?.ok("perl")
}

/// What `--expose` names is reached, and only that.
#[test]
fn expose_lifts_what_it_names() -> Result<()> {
    let base = format!("/run/namegate-escape-expose-{}", std::process::id());
    let named = Listener::at(Path::new(&format!("{base}/named.sock")))?.context("taken")?;
    let other = Listener::at(Path::new(&format!("{base}/other.sock")))?.context("taken")?;
    let path = PathBuf::from(format!("{base}/named.sock"));
    connect(&path)
        .option("--expose", &path)
        .alone()?
        .wrote("ESCAPED")?;
    connect(Path::new(&format!("{base}/other.sock")))
        .option("--expose", &path)
        .alone()?
        .refused("refused: ")?;
    wait::until_true(Duration::from_secs(30), "the exposed connection", || {
        named.reached() == 1
    })?;
    ensure!(other.reached() == 0);
    Ok(())
}

/// systemd-run asks the manager, over D-Bus or its private socket, to run something outside.
#[test]
fn systemd_run() -> Result<()> {
    let bus = Listener::at(Path::new("/run/dbus/system_bus_socket"))?;
    let script = "if command -v systemd-run >/dev/null; then systemd-run --wait echo ESCAPED 2>&1; \
                  else perl -e 'use Socket; socket(my $s, 1, 1, 0); connect($s, \
                  pack_sockaddr_un(\"/run/dbus/system_bus_socket\")) ? print \"ESCAPED\" : print \"Failed to connect\"'; fi";
    let outcome = Attack::new(script).alone()?;
    outcome.refused("Failed to")?;
    ensure!(
        bus.is_none_or(|bus| bus.reached() == 0),
        "the bus was reached"
    );
    Ok(())
}

/// The resolver files inside ask the gateway, whatever the machine's say.
#[test]
fn resolver_files() -> Result<()> {
    let outcome = Attack::new("grep -c ^nameserver /etc/resolv.conf; grep -Ec '^hosts:.*(resolve|mymachines)' /etc/nsswitch.conf")
        .alone()?;
    outcome.wrote("1\n0")?;
    let outside = Command::new("grep")
        .args(["-c", "^nameserver 198.18", "/etc/resolv.conf"])
        .output()?;
    ensure!(
        outside.stdout.trim_ascii() == b"0",
        "the machine's own file was changed"
    );
    Ok(())
}
