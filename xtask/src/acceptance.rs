//! The acceptance table: every promise names what shows it, and that exists.
//!
//! In:  docs/acceptance.md, tables headed `| promise | shown by |`; the sources.
//! Out: one finding per row that shows nothing, or names a thing that is not there.
//! Not here: running the tests (`suite`).
//!
//! A row's second cell holds items in backticks:
//! `test:package::module::function`, `cmd:make target` or another command line, `file:path`.

use std::path::{Path, PathBuf};

use crate::sources::Source;

const TABLE: &str = "docs/acceptance.md";

/// Everything wrong with the table of this checkout.
pub(crate) fn findings(root: &Path, sources: &[Source]) -> Vec<String> {
    let Some(table) = sources.iter().find(|s| s.path == Path::new(TABLE)) else {
        return vec![format!("{TABLE} is missing")];
    };
    let checkout = Checkout {
        packages: packages(sources),
        exists: &|path| root.join(path).exists(),
        sources,
    };
    check(&table.text, &checkout)
}

/// What rows are held against.
struct Checkout<'a> {
    /// Package name and folder.
    packages: Vec<(String, PathBuf)>,
    sources: &'a [Source],
    exists: &'a dyn Fn(&str) -> bool,
}

fn check(table: &str, checkout: &Checkout<'_>) -> Vec<String> {
    let rows = rows(table);
    let mut found = Vec::new();
    if rows.is_empty() {
        found.push(format!("{TABLE}: no row under `| promise | shown by |`"));
    }
    for row in rows {
        let at = format!("{TABLE}:{}", row.line);
        if row.items.is_empty() {
            found.push(format!("{at}: `{}` is shown by nothing", row.promise));
        }
        for item in &row.items {
            if let Err(why) = checkout.item(item) {
                found.push(format!("{at}: `{item}`: {why}"));
            }
        }
    }
    found
}

/// One promise.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    line: usize,
    promise: String,
    items: Vec<String>,
}

/// The rows of every acceptance table in the text; other tables are left alone.
fn rows(text: &str) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut inside = false;
    for (index, line) in text.lines().enumerate() {
        let Some(cells) = cells(line) else {
            inside = false;
            continue;
        };
        let [.., promise, shown] = cells.as_slice() else {
            continue;
        };
        if promise.eq_ignore_ascii_case("promise") && shown.eq_ignore_ascii_case("shown by") {
            inside = true;
        } else if inside && !is_rule(shown) {
            rows.push(Row {
                line: index.saturating_add(1),
                promise: promise.clone(),
                items: backticked(shown),
            });
        }
    }
    rows
}

/// The line under a table's head.
fn is_rule(cell: &str) -> bool {
    cell.contains('-') && cell.chars().all(|c| "-: ".contains(c))
}

/// The cells of a table line; `\|` is a bar inside one.
fn cells(line: &str) -> Option<Vec<String>> {
    let inner = line.trim().strip_prefix('|')?.strip_suffix('|')?;
    let hidden = inner.replace("\\|", "\u{0}");
    Some(
        hidden
            .split('|')
            .map(|cell| cell.replace('\u{0}', "|").trim().to_owned())
            .collect(),
    )
}

fn backticked(cell: &str) -> Vec<String> {
    cell.split('`')
        .skip(1)
        .step_by(2)
        .map(|item| item.trim().to_owned())
        .collect()
}

impl Checkout<'_> {
    fn item(&self, item: &str) -> Result<(), String> {
        match item.split_once(':') {
            Some(("test", path)) => self.test(path),
            Some(("cmd", command)) => self.command(command.trim()),
            Some(("file", path)) => {
                let path = path.split('#').next().unwrap_or(path);
                if (self.exists)(path) {
                    Ok(())
                } else {
                    Err("no such file".to_owned())
                }
            }
            _ => Err("begins with none of `test:`, `cmd:`, `file:`".to_owned()),
        }
    }

    fn command(&self, command: &str) -> Result<(), String> {
        let words: Vec<&str> = command.split_whitespace().collect();
        match words.as_slice() {
            [] => Err("no command".to_owned()),
            ["make", target, ..] => {
                let makefile = self
                    .sources
                    .iter()
                    .find(|s| s.path == Path::new("Makefile"));
                let rule = format!("{target}:");
                if makefile.is_some_and(|m| m.text.lines().any(|l| l.starts_with(&rule))) {
                    Ok(())
                } else {
                    Err(format!("the Makefile has no target `{target}`"))
                }
            }
            // A script of the checkout has to be there; anything else is a program of the system.
            [program, ..] if program.contains('/') && !program.starts_with('/') => {
                if program.starts_with("target/") || (self.exists)(program) {
                    Ok(())
                } else {
                    Err(format!("no such file `{program}`"))
                }
            }
            _ => Ok(()),
        }
    }

    fn test(&self, path: &str) -> Result<(), String> {
        let parts: Vec<&str> = path.split("::").collect();
        let [package, modules @ .., function] = parts.as_slice() else {
            return Err("write `test:package::module::function`".to_owned());
        };
        let folders: Vec<&PathBuf> = self
            .packages
            .iter()
            .filter(|(name, _)| name.replace('-', "_") == package.replace('-', "_"))
            .map(|(_, folder)| folder)
            .collect();
        if folders.is_empty() {
            return Err(format!("no package `{package}`"));
        }
        let mut elsewhere = None;
        let mut ignored = false;
        for source in self.sources.iter().filter(|s| s.is_rust()) {
            let Some(inner) = folders
                .iter()
                .find_map(|f| source.path.strip_prefix(f).ok())
            else {
                continue;
            };
            // A package inside another one's folder has its own name.
            if self.packages.iter().any(|(_, other)| {
                source.path.starts_with(other)
                    && !folders.contains(&other)
                    && folders.iter().any(|f| other.starts_with(f))
            }) {
                continue;
            }
            match test_function(&source.text, function) {
                None => {}
                Some(false) => ignored = true,
                Some(true) if modules.iter().all(|m| holds_module(inner, &source.text, m)) => {
                    return Ok(());
                }
                Some(true) => elsewhere = Some(source.path.display().to_string()),
            }
        }
        Err(match (ignored, elsewhere) {
            (true, _) => "the test is ignored".to_owned(),
            (_, Some(file)) => format!("a test of that name is in {file}, another module"),
            _ => "no such test".to_owned(),
        })
    }
}

/// Whether the file lies in, is, or holds a module of that name.
fn holds_module(path: &Path, text: &str, module: &str) -> bool {
    let in_path = path.with_extension("").iter().any(|part| part == module);
    in_path
        || text.lines().any(|line| {
            line.trim_start()
                .trim_start_matches("pub ")
                .strip_prefix("mod ")
                .is_some_and(|rest| rest.trim_end_matches(['{', ';', ' ']) == module)
        })
}

/// Whether the text has a test function of that name, and whether it runs.
fn test_function(text: &str, name: &str) -> Option<bool> {
    let lines: Vec<&str> = text.lines().collect();
    lines.iter().enumerate().find_map(|(at, line)| {
        let rest = line.split_once("fn ")?.1.strip_prefix(name)?;
        if !rest.starts_with(['(', '<']) {
            return None;
        }
        let attributes: Vec<&str> = lines
            .get(..at)?
            .iter()
            .rev()
            .map(|l| l.trim())
            .take_while(|l| l.starts_with("#[") || l.starts_with("//"))
            .filter(|l| l.starts_with("#["))
            .collect();
        let is_test = attributes
            .iter()
            .any(|a| a.trim_end_matches(')').contains("test]") || a.contains("test("));
        let ignored = attributes.iter().any(|a| a.contains(concat!("ign", "ore")));
        is_test.then_some(!ignored)
    })
}

/// Name and folder of every package, from the manifests.
fn packages(sources: &[Source]) -> Vec<(String, PathBuf)> {
    sources
        .iter()
        .filter(|s| s.path.file_name().is_some_and(|n| n == "Cargo.toml"))
        .filter_map(|s| {
            let name = s
                .text
                .lines()
                .skip_while(|l| l.trim() != "[package]")
                .find_map(|l| l.strip_prefix("name = \"")?.strip_suffix('"'))?;
            Some((name.to_owned(), s.path.parent()?.to_path_buf()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources() -> Vec<Source> {
        [
            ("policy/Cargo.toml", "[package]\nname = \"policy\"\n"),
            (
                "policy/src/fqdn/pattern.rs",
                "mod tests {\n    #[test]\n    fn star_is_one_label() {}\n    fn helper() {}\n}\n",
            ),
            ("dnsproxy/Cargo.toml", "[package]\nname = \"dnsproxy\"\n"),
            (
                "dnsproxy/core/Cargo.toml",
                "[package]\nname = \"dnsproxy-core\"\n",
            ),
            (
                "dnsproxy/core/src/lib.rs",
                "#[tokio::test]\nasync fn asks() {}\n#[test]\n#[IGN]\nfn slow() {}\n",
            ),
            ("Makefile", "demo: setup\n\techo\n"),
            ("docs/threat-model.md", "x\n"),
        ]
        .into_iter()
        .map(|(path, text)| Source {
            path: path.into(),
            text: text.replace("IGN", concat!("ign", "ore")),
        })
        .collect()
    }

    fn checked(shown_by: &str) -> Vec<String> {
        let sources = sources();
        let names: Vec<String> = sources
            .iter()
            .map(|s| s.path.display().to_string())
            .collect();
        let exists = |path: &str| names.iter().any(|n| n == path);
        let checkout = Checkout {
            packages: packages(&sources),
            sources: &sources,
            exists: &exists,
        };
        let table =
            format!("# T\n\n| promise | shown by |\n|---|---|\n| it works | {shown_by} |\n");
        check(&table, &checkout)
    }

    #[test]
    fn what_exists_is_accepted() {
        for item in [
            "`test:policy::fqdn::pattern::tests::star_is_one_label`",
            "`test:policy::star_is_one_label`, `cmd:make demo`",
            "`test:dnsproxy-core::asks`",
            "`test:dnsproxy_core::asks`",
            "`file:docs/threat-model.md#sudo`",
            "`cmd:cargo xtask deps`",
        ] {
            assert_eq!(checked(item), Vec::<String>::new(), "{item}");
        }
    }

    #[test]
    fn what_is_missing_is_found() {
        for (item, why) in [
            ("`test:policy::fqdn::no_such_test`", "no such test"),
            ("`test:policy::helper`", "no such test"),
            ("`test:policy::other::star_is_one_label`", "another module"),
            ("`test:nowhere::star_is_one_label`", "no package"),
            ("`test:dnsproxy::asks`", "no such test"),
            ("`test:dnsproxy-core::slow`", "ignored"),
            ("`cmd:make coffee`", "no target `coffee`"),
            ("`cmd:examples/demo/none.sh`", "no such file"),
            ("`file:docs/none.md`", "no such file"),
            ("`netns::x`", "begins with none"),
            ("by reading", "shown by nothing"),
            ("", "shown by nothing"),
        ] {
            let found = checked(item);
            assert_eq!(found.len(), 1, "{item}: {found:?}");
            assert!(found[0].contains(why), "{item}: {found:?}");
        }
    }

    #[test]
    fn a_table_without_rows_is_found() {
        let sources = sources();
        let checkout = Checkout {
            packages: packages(&sources),
            sources: &sources,
            exists: &|_| true,
        };
        assert_eq!(check("# Nothing\n", &checkout).len(), 1);
    }

    #[test]
    fn rows_come_with_their_line_and_bars() {
        let text = "| a | b |\n|---|---|\n| x | y |\n\n| # | Promise | Shown by |\n|---|---|:-:|\n| 1 | a \\| b | `cmd:a \\| b` |\n";
        assert_eq!(
            rows(text),
            [Row {
                line: 7,
                promise: "a | b".to_owned(),
                items: vec!["cmd:a | b".to_owned()],
            }]
        );
    }
}
