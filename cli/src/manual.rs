//! Completions and manual pages, made of the command line's own definition.
//!
//! In:  which shell; a folder.
//! Out: a script on stdout; a page a command, `namegate-fqdn-cache-list.1`.
//! Not here: the definition (`args`).

use std::{fs, path::Path};

use anyhow::Context;
use clap::CommandFactory;
use clap_complete::Shell;

use crate::{args::Cli, output};

const NAME: &str = "namegate";

pub(crate) fn completions(shell: Shell) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), NAME, &mut script);
    output::line(String::from_utf8_lossy(&script).trim_end())
}

pub(crate) fn pages(folder: &Path) -> anyhow::Result<()> {
    let written = || {
        fs::create_dir_all(folder)?;
        clap_mangen::generate_to(Cli::command(), folder)
    };
    written().with_context(|| format!("cannot write to `{}`", folder.display()))
}
