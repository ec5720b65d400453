//! Completions and manual pages as packagers make them.
//!
//! In:  the binary.
//! Out: scripts that their shells accept, a page for every command.
//! Not here: what the commands do.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    fs,
    io::Write,
    process::{Command, Output, Stdio},
};

fn namegate(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_namegate"))
        .args(words)
        .output()
        .unwrap()
}

fn script(shell: &str) -> String {
    let output = namegate(&["completions", shell]);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn every_shell_gets_a_script_that_knows_the_commands() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = script(shell);
        for word in ["observe", "fqdn", "cache", "bpf", "since"] {
            assert!(script.contains(word), "{shell}: no {word}");
        }
    }
    assert!(!namegate(&["completions", "cmd"]).status.success());
}

#[test]
fn bash_completes_commands_arguments_and_values() {
    let ask = r#"
        complete_words() {
            COMP_WORDS=("$@"); COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 )); COMPREPLY=()
            _namegate namegate "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
            echo "${COMPREPLY[@]}"
        }
        complete_words namegate fqdn cache c
        complete_words namegate status -o y
        complete_words namegate bpf ip
        complete_words namegate observe --dir
    "#;
    let mut bash = Command::new("bash")
        .args(["--norc", "-s"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = bash.stdin.take().unwrap();
    input.write_all(script("bash").as_bytes()).unwrap();
    input.write_all(ask.as_bytes()).unwrap();
    drop(input);
    let output = bash.wait_with_output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "clean\nyaml\nipcache\n--direction\n"
    );
}

#[test]
fn every_command_has_a_page_with_its_example() {
    let folder = tempfile::tempdir().unwrap();
    let deep = folder.path().join("man1");
    let output = namegate(&["man", deep.to_str().unwrap()]);
    assert!(output.status.success(), "{output:?}");
    for page in [
        "namegate",
        "namegate-run",
        "namegate-agent",
        "namegate-fqdn-cache-clean",
        "namegate-policy-validate",
        "namegate-observe",
        "namegate-completions",
    ] {
        let text = fs::read_to_string(deep.join(format!("{page}.1"))).unwrap();
        assert!(text.contains("Example"), "{page}: {text}");
    }
    let output = namegate(&["man", "/proc/nowhere"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && said.contains("/proc/nowhere"),
        "{said}"
    );
}

#[test]
fn help_of_every_command_ends_with_an_example() {
    let mut waiting = vec![Vec::<String>::new()];
    let mut seen = 0;
    while let Some(words) = waiting.pop() {
        let mut all: Vec<_> = words.iter().map(String::as_str).collect();
        all.push("--help");
        let output = namegate(&all);
        let help = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{words:?}");
        seen += 1;
        match help.split_once("\nCommands:\n") {
            Some((_, list)) => {
                let commands = list.lines().take_while(|line| line.starts_with("  "));
                for name in commands.filter_map(|line| line.split_whitespace().next()) {
                    waiting.push([words.clone(), vec![name.to_owned()]].concat());
                }
            }
            None => {
                let tail = help.split("\nOptions:").last().unwrap();
                assert!(tail.contains("Example"), "{words:?}: {help}");
            }
        }
    }
    assert!(seen > 20, "{seen}");
}
