//! The command inside: its status, streams, folder, environment and signals are its own.

use std::io::Write;
use std::process::Stdio;

use anyhow::{Result, ensure};
use netns::{get, knock};
use support::{World, world::address as at};

#[test]
fn the_status_of_the_command_is_the_status_of_namegate() -> Result<()> {
    let world = World::new()?;
    for status in [0, 3, 77, 255] {
        let done = world
            .run_with_dns()?
            .allow("example.test")
            .script(&format!("exit {status}"))?;
        assert_eq!(done.status, status, "{done:?}");
        assert_eq!(done.report()?.exit_status, status);
    }
    let killed = world
        .run_with_dns()?
        .allow("example.test")
        .script("kill -TERM $$")?;
    assert_eq!(killed.status, 128 + 15, "{killed:?}");
    let killed = world
        .run_with_dns()?
        .allow("example.test")
        .script("kill -KILL $$")?;
    assert_eq!(killed.status, 128 + 9, "{killed:?}");
    Ok(())
}

#[test]
fn a_command_that_is_not_there_or_cannot_be_run_is_told_as_shells_do() -> Result<()> {
    let world = World::new()?;
    let missing = world
        .run_with_dns()?
        .allow("example.test")
        .command(&["no-such-program-here"])?;
    assert_eq!(missing.status, 127, "{missing:?}");
    missing.says(&["no-such-program-here", "not found"])?;
    let directory = world
        .run_with_dns()?
        .allow("example.test")
        .command(&["/etc"])?;
    assert_eq!(directory.status, 126, "{directory:?}");
    directory.says(&["/etc"])?;
    let plain = world.files().join("plain");
    std::fs::write(&plain, "no program")?;
    let plain = world
        .run_with_dns()?
        .allow("example.test")
        .command(&[&plain.to_string_lossy()])?;
    assert_eq!(plain.status, 126, "{plain:?}");
    Ok(())
}

#[test]
fn fail_on_deny_turns_a_success_into_77_only_when_something_was_denied() -> Result<()> {
    let world = World::new()?;
    let run = || -> Result<_> {
        Ok(world
            .run_with_dns()?
            .allow("example.test")
            .flag("--fail-on-deny"))
    };
    run()?.script(&get("-4 https://example.test/"))?.expect(0)?;
    let denied = run()?.script(&format!("{} || true", knock("-4 https://other.test/")))?;
    assert_eq!(denied.status, 77, "{denied:?}");
    denied.says(&["other.test", at::OTHER])?;
    // A command that failed by itself keeps its own status.
    let failed = run()?.script(&format!("{}; exit 9", knock("-4 https://other.test/")))?;
    assert_eq!(failed.status, 9, "{failed:?}");
    // Without the option a denial is told and changes nothing.
    let quiet = world
        .run_with_dns()?
        .allow("example.test")
        .script(&format!("{} || true", knock("-4 https://other.test/")))?;
    assert_eq!(quiet.status, 0, "{quiet:?}");
    quiet.says(&["other.test"])
}

#[test]
fn standard_streams_pass_through_untouched() -> Result<()> {
    let world = World::new()?;
    let mut running = world.run_with_dns()?.allow("example.test").start(
        &[
            "bash",
            "-c",
            "sha256sum; echo to-stderr >&2; printf 'no newline'",
        ],
        Stdio::piped(),
    )?;
    let mut input = running.process().child().stdin.take().expect("a pipe");
    let bytes: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_le_bytes).collect();
    input.write_all(&bytes)?;
    drop(input);
    let done = running.finish()?;
    assert_eq!(done.status, 0, "{done:?}");
    // Computed by an independent program outside.
    let file = world.files().join("bytes");
    std::fs::write(&file, &bytes)?;
    let outside = support::process::output_of(
        std::process::Command::new("sha256sum")
            .stdin(Stdio::null())
            .arg(&file),
    )?;
    let digest = outside.stdout.split_whitespace().next().unwrap_or_default();
    assert_eq!(done.stdout, format!("{digest}  -\nno newline"));
    assert_eq!(
        done.stderr, "to-stderr\n",
        "namegate itself says nothing when nothing was denied"
    );
    Ok(())
}

#[test]
fn folder_environment_and_arguments_are_the_callers() -> Result<()> {
    let world = World::new()?;
    let folder = world.files().join("a folder");
    std::fs::create_dir(&folder)?;
    let done = world
        .run_with_dns()?
        .allow("example.test")
        .current_dir(&folder)
        .env("A_VARIABLE", "with spaces\nand lines")
        .command(&[
            "bash",
            "-c",
            "pwd; printf '%s|' \"$A_VARIABLE\" \"$@\"",
            "name",
            "a b",
            "",
            "--policy",
            "$HOME",
        ])?;
    assert_eq!(
        done.expect(0)?,
        format!(
            "{}\nwith spaces\nand lines|a b||--policy|$HOME|",
            folder.display()
        )
    );
    // Files of the machine are the command's files.
    let file = folder.join("made inside");
    let done = world
        .run_with_dns()?
        .allow("example.test")
        .command(&["touch", &file.to_string_lossy()])?;
    done.expect(0)?;
    ensure!(file.exists(), "what the command writes stays");
    Ok(())
}

#[test]
fn the_terminal_is_the_commands() -> Result<()> {
    let world = World::new()?;
    let job = "test -t 0 && test -t 1 && test -t 2 && stty size >/dev/null && echo a-terminal; cat </dev/tty | head -1";
    let (command, _files, _) = world
        .run_with_dns()?
        .bare()
        .allow("example.test")
        .prepare(&["bash", "-c", job])?;
    let words: Vec<String> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| format!("'{}'", word.to_string_lossy().replace('\'', "'\\''")))
        .collect();
    let mut terminal = std::process::Command::new("script");
    terminal
        .args(["-qefc", &words.join(" "), "/dev/null"])
        .stdin(Stdio::piped());
    let mut process = support::Process::with_input("script", &mut terminal)?;
    let mut keyboard = process.child().stdin.take().expect("a keyboard");
    support::until(std::time::Duration::from_secs(20), "the terminal", || {
        process.stdout().contains("a-terminal").then_some(())
    })?;
    keyboard.write_all(b"typed\n")?;
    support::until(
        std::time::Duration::from_secs(30),
        "what was typed, echoed and read",
        || (process.stdout().matches("typed").count() >= 2).then_some(()),
    )?;
    keyboard.write_all(&[4])?;
    let output = process.wait(std::time::Duration::from_secs(20))?;
    assert_eq!(output.status, 0, "{output:?}");
    // On a terminal the summary always comes.
    ensure!(output.stdout.contains("namegate:"), "{output:?}");
    Ok(())
}

#[test]
fn the_report_file_holds_what_the_screen_says() -> Result<()> {
    let world = World::new()?;
    let lines = [
        get("-4 https://example.test/"),
        knock("-4 http://example.test/"),
        knock(&format!("https://{}/", at::EVIL)),
    ];
    let done = world
        .run_with_dns()?
        .allow("example.test")
        .script(&lines.join("; "))?;
    let report = done.report()?;
    assert_eq!(report.command.first().map(String::as_str), Some("bash"));
    assert!(
        !report.endpoint.addresses.is_empty() && !report.endpoint.labels.is_empty(),
        "{report:?}"
    );
    assert_eq!(report.policies.len(), 1, "{report:?}");
    assert_eq!(report.lost_events, 0);
    assert!(report.allowed_to(at::EXAMPLE, 443).is_some());
    assert!(report.denied_to(at::EXAMPLE, 80).is_some());
    assert!(report.denied_to(at::EVIL, 443).is_some());
    done.says(&["example.test", at::EXAMPLE, at::EVIL, "Policy denied"])
}

#[test]
fn audit_refuses_nothing_and_tells_what_would_have_been() -> Result<()> {
    let world = World::new()?;
    let lines = [
        get("-4 https://example.test/"),
        get("-4 https://other.test/"),
        get(&format!("-k https://{}/", at::EVIL)),
    ];
    let done = world
        .run_with_dns()?
        .allow("example.test")
        .flag("--audit")
        .script(&lines.join(" && "))?;
    assert_eq!(done.expect(0)?.lines().count(), 3, "all three were reached");
    let report = done.report()?;
    assert!(report.audit);
    assert!(report.denied_to(at::OTHER, 443).is_some(), "{report:?}");
    assert!(report.denied_to(at::EVIL, 443).is_some(), "{report:?}");
    assert!(report.denied_to(at::EXAMPLE, 443).is_none(), "{report:?}");
    Ok(())
}

#[test]
fn without_privileges_it_says_what_is_missing() -> Result<()> {
    let world = World::new()?;
    let (command, _files, _) = world
        .run_with_dns()?
        .bare()
        .allow("example.test")
        .prepare(&["true"])?;
    let binary = std::fs::read(support::tools::namegate()?)?;
    // A copy where everybody may read it: the build folder may be closed to others.
    let copy = world.files().join("namegate");
    std::fs::write(&copy, binary)?;
    std::fs::set_permissions(&copy, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let mut words: Vec<std::ffi::OsString> =
        command.get_args().map(std::ffi::OsStr::to_owned).collect();
    let program = words
        .iter()
        .position(|word| word == "run")
        .expect("the subcommand");
    words.drain(..program);
    let output = support::process::output_of(
        std::process::Command::new("setpriv")
            .args([
                "--reuid=65534",
                "--regid=65534",
                "--clear-groups",
                "--inh-caps=-all",
                "--",
            ])
            .arg(copy)
            .args(words)
            .current_dir("/"),
    )?;
    assert_eq!(output.status, 125, "{output:?}");
    ensure!(
        output.stderr.contains("root") || output.stderr.contains("sudo"),
        "{output:?}"
    );
    Ok(())
}

#[test]
fn a_wrong_command_line_is_namegates_own_failure() -> Result<()> {
    let world = World::new()?;
    let cases: [(&[&str], &[&str]); 5] = [
        (&["--allow", "ex%ample.test"], &["ex%ample.test"]),
        (&["--allow", "example.test:99999"], &["99999"]),
        (
            &["--allow", "example.test", "--dns", "not-an-address"],
            &["not-an-address"],
        ),
        (
            &["--allow", "example.test", "--no-such-option"],
            &["--no-such-option"],
        ),
        (
            &["--policy", "/nonexistent/policy.yaml"],
            &["/nonexistent/policy.yaml"],
        ),
    ];
    for (options, expected) in cases {
        let mut run = world.run()?;
        for option in options {
            run = run.flag(option);
        }
        let done = run.command(&["touch", "/nonexistent/never"])?;
        assert_eq!(done.status, 125, "{options:?}: {done:?}");
        done.says(expected)?;
    }
    Ok(())
}

#[test]
fn the_report_is_written_to_no_place_the_command_chose() -> Result<()> {
    let world = World::new()?;
    let dir = tempfile::tempdir()?;
    let precious = dir.path().join("precious");
    std::fs::write(&precious, "precious")?;
    let report = dir.path().join("report.json");
    for trick in ["ln -s", "ln"] {
        let line = format!(
            "rm -f {0}; {trick} {1} {0}",
            report.display(),
            precious.display()
        );
        world
            .run_with_dns()?
            .bare()
            .allow("example.test")
            .option("--report", report.display().to_string())
            .script(&line)?
            .expect(0)?;
        assert_eq!(std::fs::read_to_string(&precious)?, "precious", "{trick}");
        // The next run finds the link and does not follow it.
        if trick == "ln -s" {
            let next = world
                .run_with_dns()?
                .bare()
                .allow("example.test")
                .option("--report", report.display().to_string())
                .script("true")?;
            next.says(&["link"])?;
            next.expect(125)?;
        }
        std::fs::remove_file(&report)?;
    }
    Ok(())
}
