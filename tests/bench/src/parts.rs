//! The parts of a run.
//!
//! In:  names from the command line.
//! Out: [`Part`]s in a fixed order. A new part is a module below this one and a line in [`ALL`].
//! Not here: measuring (the modules), printing (`table`).

mod datapath;
mod dns;
mod policy;

use anyhow::bail;

use crate::{options::Options, table::Table};

/// Something that can be measured by itself.
#[derive(Debug)]
pub(crate) struct Part {
    /// Its name on the command line.
    pub(crate) name: &'static str,
    /// Measures; everything it made is gone when it returns.
    pub(crate) run: fn(&Options) -> anyhow::Result<Vec<Table>>,
}

/// Every part.
const ALL: &[Part] = &[
    Part {
        name: "datapath",
        run: datapath::run,
    },
    Part {
        name: "policy",
        run: policy::run,
    },
    Part {
        name: "dns",
        run: dns::run,
    },
];

/// The parts with these names, all when none is named.
pub(crate) fn chosen(names: &[String]) -> anyhow::Result<Vec<&'static Part>> {
    for name in names {
        if !ALL.iter().any(|part| part.name == name) {
            let known: Vec<&str> = ALL.iter().map(|part| part.name).collect();
            bail!(
                "no part is called `{name}`; there are: {}",
                known.join(", ")
            );
        }
    }
    Ok(ALL
        .iter()
        .filter(|part| names.is_empty() || names.iter().any(|name| name == part.name))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_means_all_and_an_unknown_one_is_answered_with_those_there_are() {
        assert_eq!(chosen(&[]).unwrap().len(), ALL.len());
        assert_eq!(chosen(&["datapath".to_owned()]).unwrap().len(), 1);
        let error = chosen(&["datapth".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("datapath"), "{error}");
    }
}
