//! Every script is a test of its own name, and none is forgotten.
//!
//! `REWRITE_SCRIPTS=1 cargo test -p scenarios` writes what happens into the scripts; read the
//! difference before it is committed.

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
                if std::env::var_os("REWRITE_SCRIPTS").is_some() {
                    std::fs::write(&path, scenarios::rewrite(&script).unwrap()).unwrap();
                    return;
                }
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
    a_query_is_not_a_reply
    a_machine_that_slept_grants_nothing_that_is_over
    added_rule_opens_at_once
    address_quota_evicts_the_endpoints_own_oldest
    another_port_of_a_trusted_server_teaches_nothing
    audit_never_costs_an_answer
    casing_is_preserved_end_to_end
    changing_selectors_takes_nothing_away_in_between
    cleaned_names_open_nothing
    closed_connection_waits_for_nothing
    cname_chain_belongs_to_the_queried_name
    cname_loop_ends
    deleted_endpoint_leaves_nothing
    dname_leads_on_by_its_alias
    dot_inside_a_label_is_not_a_boundary
    duplicate_is_answered_once
    endpoints_learn_apart
    entry_in_doubt_is_written_again
    errors_and_empty_answers_pass_and_change_nothing
    exact_name_opens_for_its_ttl
    failed_write_is_taken_back
    five_sets_share_four_slots_and_nobody_loses
    forgotten_name_closes_nothing
    garbage_from_clients
    https_hints_are_learned
    in_flight_limit_answers_at_once
    ipv6_is_learned_like_ipv4
    map_full_refuses_with_a_reason
    no_answer_before_its_write
    no_name_opens_an_address_of_the_cluster
    nothing_rests_on_a_write_that_failed
    odd_answers_are_understood
    only_class_in_teaches
    only_queries_are_proxied
    options_pass_both_ways
    own_resolver_teaches_nothing
    policy_changes_while_an_answer_is_written
    private_addresses_are_withheld_by_setting
    rebinding_addresses_are_withheld
    reconnecting_after_a_short_ttl
    records_off_the_chain_teach_nothing
    redirect_fails_over
    refused_as_nxdomain
    refused_with_extended_error
    removed_rule_closes_at_once
    retransmission_is_sent_on_and_answered_once
    rotating_addresses_each_have_their_time
    rule_for_an_aliases_target_opens_nothing
    search_list_names_are_names_of_their_own
    silence_is_passed_on
    tcp_answers_out_of_order
    truncated_answer_passes_and_teaches_what_it_holds
    ttl_contract
    two_names_of_one_selector_share_a_slot
    two_names_on_one_address_end_separately
    unchanged_answer_writes_nothing
    unknown_types_pass_untouched
    unmatched_names_never_push_out_matched_ones
    unreachable_resolver_is_servfail
    unreadable_answer_is_servfail
    unsolicited_teaches_nothing
    wrong_id_is_ignored
    wrong_port_slot_is_ignored
    wrong_question_is_ignored
    wrong_server_is_ignored
}
