//! The suites that need a kernel, built here and run in the guest.
//!
//! In:  packages; what cargo says about the test programs it built.
//! Out: the tests' own output, then `N passed, N failed`. The guest itself is looked at first.
//! Not here: the tests; adding up (`totals`); the guest (`guest`, `qemu`).

use std::{
    path::{Path, PathBuf},
    process::{ExitCode, Stdio},
};

use anyhow::Context as _;
use cargo_metadata::Message;

use super::{
    Request, folder,
    guest::{Run, quoted},
    qemu, start,
};
use crate::{cargo, totals::Totals};

const PACKAGES: &[&str] = &["fqdn-ebpf-loader", "netns"];

/// How much slower an emulated processor is, for tests that wait (`support::patience`).
const EMULATED: u32 = 10;
/// Tests at once where it is emulated: half of the time they wait for devices.
const AT_ONCE: u32 = 5;

/// Closes the output of one test program.
const ENDED: &str = "vm: ended with status ";

/// A test program, and the folder cargo would start it in.
#[derive(Debug, PartialEq, Eq)]
struct Program {
    name: String,
    file: PathBuf,
    folder: PathBuf,
}

/// Builds the suites, runs them in one guest, and adds up.
pub(super) fn run(root: &Path, request: &Request) -> anyhow::Result<ExitCode> {
    let mut packages: Vec<&str> = request.packages.iter().map(String::as_str).collect();
    if packages.is_empty() {
        packages.extend(PACKAGES);
    }
    let run = Run::new(&folder(root))?;
    let namegate = run.keep(&namegate(root)?)?;
    let mut programs = vec![smoke(root)];
    for program in build(root, &packages)? {
        let file = run.keep(&program.file)?;
        programs.push(Program { file, ..program });
    }
    let slowness = if qemu::kvm() { 1 } else { EMULATED };
    let script = script(&programs, &namegate, slowness, request.filter.as_deref());

    let mut count = Count::default();
    let status = start(root, request, &run, &script, |line| {
        count.line(&String::from_utf8_lossy(line));
    });
    let status = status.unwrap_or_else(|error| {
        println!("xtask: {error:#}");
        1
    });
    let totals = count.total(programs.len(), status);
    if totals.ignored > 0 {
        println!(
            "{} ignored: a test that does not run proves nothing",
            totals.ignored
        );
    }
    println!("{totals}");
    Ok(if totals.good() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// What the test programs said so far.
#[derive(Debug, Default)]
struct Count {
    totals: Totals,
    /// Failures that the running program has named.
    named: u64,
    ended: usize,
}

impl Count {
    fn line(&mut self, line: &str) {
        if let Some(totals) = Totals::of_line(line) {
            self.totals += totals;
            self.named += totals.failed;
        }
        if let Some((_, status)) = line.split_once(ENDED) {
            if status.trim() != "0" && self.named == 0 {
                self.fail();
            }
            self.named = 0;
            self.ended += 1;
        }
    }

    /// A program that never ended, and a guest that ended badly, count as failures.
    fn total(mut self, programs: usize, status: u8) -> Totals {
        if self.ended < programs || (status != 0 && self.totals.failed == 0) {
            self.fail();
        }
        self.totals
    }

    fn fail(&mut self) {
        self.totals += Totals {
            failed: 1,
            ..Totals::default()
        };
    }
}

fn script(programs: &[Program], namegate: &Path, slowness: u32, filter: Option<&str>) -> String {
    let mut script = format!(
        "export NAMEGATE_BIN={} NAMEGATE_SLOWNESS={slowness}\n\
         [ {slowness} = 1 ] || export RUST_TEST_THREADS={AT_ONCE}\n\
         all=0\necho \"vm: Linux $(uname -r)\"\n",
        quoted(namegate)
    );
    let filter = filter.map(quoted).unwrap_or_default();
    for program in programs {
        let folder = quoted(&program.folder);
        script.push_str(&format!(
            "echo; echo {}\n\
             (cd {folder} && CARGO_MANIFEST_DIR={folder} exec {} {filter}) \n\
             ended=$?; [ $ended = 0 ] || all=1\n\
             echo; echo \"{ENDED}$ended\"\n",
            quoted(format!("vm: {}", program.name)),
            quoted(&program.file),
        ));
    }
    script.push_str("exit $all\n");
    script
}

/// Whether the guest itself is in order; it names what is not.
fn smoke(root: &Path) -> Program {
    Program {
        name: "vm/smoke".to_owned(),
        file: root.join("tests/vm/smoke"),
        folder: root.to_path_buf(),
    }
}

fn namegate(root: &Path) -> anyhow::Result<PathBuf> {
    let built = artifacts(root, &["build", "--package", "namegate"])?;
    let binary = built
        .into_iter()
        .find(|program| program.name.ends_with("/namegate"));
    Ok(binary.context("cargo built no namegate")?.file)
}

fn build(root: &Path, packages: &[&str]) -> anyhow::Result<Vec<Program>> {
    let mut arguments = vec!["test", "--no-run"];
    for package in packages {
        arguments.extend(["--package", *package]);
    }
    let programs = artifacts(root, &arguments)?;
    anyhow::ensure!(
        !programs.is_empty(),
        "{} have no tests",
        packages.join(", ")
    );
    Ok(programs)
}

/// The programs that `cargo ARGUMENTS` built or found fresh.
fn artifacts(root: &Path, arguments: &[&str]) -> anyhow::Result<Vec<Program>> {
    let done = cargo(root)
        .args(arguments)
        .args(["--message-format", "json-render-diagnostics"])
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start cargo")?;
    anyhow::ensure!(
        done.status.success(),
        "`cargo {}` ended with {}",
        arguments.join(" "),
        done.status
    );
    let wanted_tests = arguments.contains(&"test");
    programs(&done.stdout, wanted_tests)
}

/// Reads cargo's messages; only tests when `tests`, else only ordinary programs.
fn programs(messages: &[u8], tests: bool) -> anyhow::Result<Vec<Program>> {
    let mut found = Vec::new();
    for message in Message::parse_stream(messages) {
        if let Message::CompilerArtifact(artifact) = message?
            && let Some(file) = artifact.executable
            && artifact.profile.test == tests
        {
            let folder = artifact
                .manifest_path
                .parent()
                .context("a manifest without a folder")?;
            found.push(Program {
                name: format!(
                    "{}/{}",
                    folder.file_name().unwrap_or_default(),
                    artifact.target.name
                ),
                file: file.into_std_path_buf(),
                folder: folder.as_std_path().to_path_buf(),
            });
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out";
    const BAD: &str =
        "test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out";

    fn counted(lines: &[&str], programs: usize, status: u8) -> String {
        let mut count = Count::default();
        for line in lines {
            count.line(line);
        }
        count.total(programs, status).to_string()
    }

    #[test]
    fn programs_add_up() {
        let lines = [
            GOOD,
            "vm: ended with status 0\n",
            BAD,
            "vm: ended with status 101\n",
        ];
        assert_eq!(counted(&lines, 2, 1), "5 passed, 1 failed");
    }

    #[test]
    fn a_program_that_died_is_a_failure() {
        let died = "vm: ended with status 134\n";
        assert_eq!(
            counted(&[GOOD, "vm: ended with status 0\n", died], 2, 1),
            "3 passed, 1 failed"
        );
    }

    #[test]
    fn a_program_that_never_ended_is_a_failure() {
        assert_eq!(
            counted(&[GOOD, "vm: ended with status 0\n"], 2, 1),
            "3 passed, 1 failed"
        );
        assert_eq!(counted(&[], 1, 0), "0 passed, 1 failed");
    }

    #[test]
    fn the_script_tells_how_each_program_ended() {
        let program = |name: &str, file: &str| Program {
            name: name.to_owned(),
            file: file.into(),
            folder: "/usr".into(),
        };
        let programs = [
            program("a/true", "/bin/true"),
            program("b/false", "/bin/false"),
        ];
        let script = script(&programs, Path::new("/x/namegate"), 1, None);
        let done = std::process::Command::new("sh")
            .args(["-c", &script])
            .output()
            .unwrap();
        assert_eq!(done.status.code(), Some(1));
        let said = String::from_utf8(done.stdout).unwrap();
        let ends: Vec<&str> = said
            .lines()
            .filter_map(|line| line.strip_prefix(ENDED))
            .collect();
        assert_eq!(ends, ["0", "1"]);
    }

    #[test]
    fn only_test_programs_are_taken_from_cargo() {
        let artifact = |name: &str, test: bool| {
            format!(
                r#"{{"reason":"compiler-artifact","package_id":"path+file:///r/tests/netns#0.1.0","manifest_path":"/r/tests/netns/Cargo.toml","target":{{"kind":["test"],"crate_types":["bin"],"name":"{name}","src_path":"/r/x.rs","edition":"2024","doc":false,"doctest":false,"test":true}},"profile":{{"opt_level":"0","debuginfo":1,"debug_assertions":true,"overflow_checks":true,"test":{test}}},"features":[],"filenames":["/r/t"],"executable":"/r/{name}-0","fresh":true}}"#
            )
        };
        let messages = format!(
            "{}\n{}\n",
            artifact("names", true),
            artifact("helper", false)
        );
        assert_eq!(
            programs(messages.as_bytes(), true).unwrap(),
            [Program {
                name: "netns/names".to_owned(),
                file: "/r/names-0".into(),
                folder: "/r/tests/netns".into(),
            }]
        );
    }
}
