//! Between a decision and the kernel: batches on their way, and the answers that wait for them.
//!
//! In:  lessons to install; proofs and failures from the map writer.
//! Out: [`Effect::Install`], then [`Effect::Release`] with the proof, or SERVFAIL.
//! Not here: what is in a batch (`ledger`), writing it (`fqdn-ebpf/loader`).
//!
//! Batches are written in the order of their effects. An answer may rest on what an older batch
//! wrote; whether it did is checked when the answer's own batch is done.

use std::{net::IpAddr, sync::Arc, time::Duration};

use identity::EndpointId;

use crate::{
    Batch, BatchId, Core, Effect, GrantChange, InstallFailed, Installed, Moment, QueryVerdict,
    WriteError,
    knowledge::Workload,
    ledger::{Lesson, Undo},
    refusal::Info,
    reply::Outcome,
};

/// Changes per batch without an answer: a bound on how long one batch keeps answers waiting.
const UPKEEP_BATCH: usize = 256;

/// When a failed write without an answer is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Failed writes that are tried again. What is beyond ends by itself when it expires.
const MAX_RETRIES: usize = 65_536;

/// How often an answer is tried whose ground was taken away while it waited.
const MAX_ATTEMPTS: u8 = 3;

/// What happens when a batch is done.
#[derive(Debug)]
pub(crate) enum Pending {
    Answer(Box<PendingAnswer>),
    Upkeep(Vec<(EndpointId, IpAddr)>),
}

/// An answer that waits for its batch.
#[derive(Debug)]
pub(crate) struct PendingAnswer {
    outcome: Outcome,
    lesson: Lesson,
    undo: Undo,
    /// What it was judged under.
    workload: Arc<Workload>,
    attempts: u8,
}

impl PendingAnswer {
    pub(crate) fn new(outcome: Outcome, lesson: Lesson, workload: Arc<Workload>) -> Self {
        Self {
            outcome,
            lesson,
            undo: Undo::default(),
            workload,
            attempts: 0,
        }
    }
}

impl Core {
    /// Enters a lesson in the ledger and has it installed.
    pub(crate) fn teach(&mut self, now: Moment, mut answer: Box<PendingAnswer>) {
        match self.ledger.teach(now, &answer.lesson) {
            Ok((changes, undo)) => {
                answer.undo = undo;
                answer.attempts += 1;
                self.install(changes, Pending::Answer(answer));
            }
            Err(error) => self.not_learned(now, answer, error.to_string()),
        }
    }

    /// Has changes installed that no answer waits for.
    pub(crate) fn install_upkeep(&mut self, changes: Vec<GrantChange>) {
        let mut rest = changes.into_iter().peekable();
        while rest.peek().is_some() {
            let part: Vec<_> = rest.by_ref().take(UPKEEP_BATCH).collect();
            let places = part.iter().map(place).collect();
            self.install(part, Pending::Upkeep(places));
        }
    }

    fn install(&mut self, changes: Vec<GrantChange>, pending: Pending) {
        let id = BatchId::new(self.next_batch);
        self.next_batch += 1;
        self.pending.insert(id, pending);
        self.effects
            .push_back(Effect::Install(Batch::new(id, changes)));
    }

    /// A batch is in the kernel.
    pub fn handle_installed(&mut self, now: Moment, proof: Installed) {
        let batch = proof.batch();
        match self.pending.remove(&batch) {
            Some(Pending::Answer(answer)) => self.installed(now, answer, proof),
            Some(Pending::Upkeep(places)) => {
                for (endpoint, address) in places {
                    self.ledger.settled(batch, endpoint, address);
                }
            }
            None => {}
        }
    }

    fn installed(&mut self, now: Moment, mut answer: Box<PendingAnswer>, proof: Installed) {
        let lesson = &answer.lesson;
        let Some(in_force) = self.knowledge.workload(lesson.endpoint).cloned() else {
            return;
        };
        self.ledger.written(proof.batch(), lesson, &answer.undo);
        let same = Arc::ptr_eq(&in_force, &answer.workload)
            || in_force.selectors_matching(&lesson.name) == lesson.set;
        if !same {
            return self.judge(now, answer.outcome, &in_force);
        }
        if self.ledger.confirm(now, lesson) {
            self.counters.taught += 1;
            self.left_flight(lesson.endpoint);
            let outcome = answer.outcome;
            let record = outcome.record(now, QueryVerdict::Taught);
            // Recorded first: whoever writes names down has done so before a client knows of them.
            self.effects.push_back(Effect::Record(record));
            self.effects.push_back(Effect::Release {
                client: outcome.exchange.client,
                message: outcome.message,
                proof,
            });
            return;
        }
        if answer.attempts < MAX_ATTEMPTS {
            answer.undo = Undo::default();
            return self.teach(now, answer);
        }
        let reason = "what the answer opens was taken back while it was written".to_owned();
        self.not_learned(now, answer, reason);
    }

    /// A batch is not, or not entirely, in the kernel.
    pub fn handle_install_failed(&mut self, now: Moment, failed: InstallFailed) {
        let InstallFailed { batch, error } = failed;
        self.counters.write_failures += 1;
        match self.pending.remove(&batch) {
            Some(Pending::Answer(answer)) => {
                let changes = self.ledger.undo(now, batch, &answer.lesson, &answer.undo);
                self.install_upkeep(changes);
                self.not_learned(now, answer, error.to_string());
            }
            Some(Pending::Upkeep(places)) => {
                for (endpoint, address) in places {
                    self.ledger.doubt(batch, endpoint, address);
                    if !matches!(error, WriteError::NoEndpoint(_))
                        && self.retries.len() < MAX_RETRIES
                    {
                        self.retries
                            .insert((now.after(RETRY_AFTER), endpoint, address));
                    }
                }
            }
            None => {}
        }
    }

    /// An answer that cannot be learned from is not released, or the client would connect to
    /// what the kernel drops. In audit mode nothing of ours may cost the workload an answer.
    fn not_learned(&mut self, now: Moment, answer: Box<PendingAnswer>, reason: String) {
        let outcome = answer.outcome;
        let audit = self
            .knowledge
            .workload(outcome.exchange.client.endpoint)
            .is_some_and(|workload| workload.audit);
        if audit {
            return self.pass(now, outcome, "audit: it could not be learned");
        }
        self.fail(now, outcome.exchange, Info::Other, reason);
    }
}

fn place(change: &GrantChange) -> (EndpointId, IpAddr) {
    match change {
        GrantChange::Put(learned) => (learned.endpoint, learned.address),
        GrantChange::Remove { endpoint, address } => (*endpoint, *address),
    }
}
