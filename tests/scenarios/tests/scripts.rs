//! Every script is a test of its own name, and none is forgotten.

use std::{collections::BTreeSet, path::Path};

fn directory() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts")
}

macro_rules! scripts {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                let path = directory().join(concat!(stringify!($name), ".txt"));
                let script = std::fs::read_to_string(&path).unwrap();
                if let Err(error) = scenarios::run(&script) {
                    panic!("{}: {error:#}", path.display());
                }
            }
        )*

        #[test]
        fn every_script_is_run() {
            let run: BTreeSet<_> = [$(concat!(stringify!($name), ".txt")),*].map(str::to_owned).into();
            let there: BTreeSet<_> = std::fs::read_dir(directory())
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            assert_eq!(run, there);
        }
    };
}

scripts! {
    exact_name_opens_for_its_ttl
}
