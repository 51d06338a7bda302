//! Transcripts of the agents' primitives: `tests/scripts/agents/*.txt` at the root of the
//! repository hold what happened, and under each line what the machine made of it.
//! `UPDATE=1 cargo test -p seawall-kernel --test transcripts` writes the answers anew; what
//! changed is then seen in the diff.
//!
//! `#` begins a comment; words with blanks stand in `"quotes"`. Lines that begin with `> `
//! are answers: after the time in milliseconds `|` shows a record of the shard with its
//! sequence, everything else is what is asked of the world. After each line the records are
//! folded anew from nothing and held against the rows on disk and in memory (I4), and the
//! reconciler looks for whatever was left behind.
//!
//! ```text
//! rules                            the rules, as the indented lines say; may come again
//!   kind NAME [mail] [every "CRON"] [restart HOW] [strategy HOW] [intensity N] [still N] [inbox N]
//!        [tokens N] [money N] [calls N] [steps N] [wall SECS] [children N] [depth N]
//!   gate ID WHAT ON allow|deny|ask QUORUM SECS|redact PATH
//!   places turns|models|tools N    how many at once
//!   tries N                        how often an effect is tried
//!   suspend SECS                   who only waits leaves memory then
//! start AGENT ["TASK"] [tokens N] [money N] [calls N] [steps N] [wall SECS]
//! turn AGENT                       takes the turn it was granted, and wants the indented lines:
//!   set KEY "VALUE" | keep KEY EFFECT
//!   model NAME [tokens N] [money N] [twin N]
//!   tool NAME CLASS ["ARGS"] [undo TOOL] [query TOOL] [tokens N] [money N] [within SECS] [twin N]
//!   child AGENT ["TASK"] [tokens N] [money N] [calls N] [steps N]
//!   message AGENT "TEXT" | publish TOPIC "TEXT" | subscribe TOPIC | unsubscribe TOPIC
//!   monitor AGENT | link AGENT | unlink AGENT
//!   timer SECS | ask "QUESTION" [within SECS]
//!   get KEY | put KEY "VALUE" [expect N] | watch KEY VERSION
//!   acquire RESOURCE UNITS OF SECS | release RESOURCE TOKEN
//!   all                            the next turn waits for all answers
//!   end "OUTPUT" | fail CODE "WHY"
//! stumble AGENT "WHY"              its handler fails in its turn
//! done EFFECT ["TEXT"] [tokens N] [money N]
//! found EFFECT done "TEXT" | found EFFECT not|unknown      what the tool says that was asked
//! lost EFFECT "WHY"                sent, and nobody knows whether it was done
//! notdone EFFECT "WHY"             not sent: it may be tried again
//! yes|no EFFECT WHO ["ARGS"]       people on what asks, or is in doubt
//! resolve EFFECT WHO "ANSWER"      the answer to a promise, or to what is in doubt
//! send AGENT NUMBER "TEXT"         a message from outside; the same number is the same message
//! put KEY "VALUE" [expect N]       a value written from outside
//! cancel RUN | again RUN
//! halt SCOPE | lift SCOPE
//! release AGENT                    out of quarantine
//! redrive N | drop N               a dead letter
//! disk stalls|writes
//! crash                            what is not on disk is gone; begins again from the disk
//! at SECS                          time passes, alarms ringing on the way
//! show AGENT|runs|leases|topics|letters|halts|waits
//! ```

mod player;
mod shows;
mod wishes;
mod words;

use std::path::{Path, PathBuf};

#[expect(clippy::disallowed_methods, reason = "scripts are files, and UPDATE asks for them to be rewritten")]
#[test]
fn every_transcript_plays_as_written() {
    let mut scripts: Vec<PathBuf> = std::fs::read_dir(folder())
        .expect("the folder of transcripts")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|end| end == "txt"))
        .collect();
    scripts.sort();
    assert!(scripts.len() >= 12, "the transcripts are where they should be");
    let mut wrong = Vec::new();
    for path in scripts {
        let script = std::fs::read_to_string(&path).expect("a readable transcript");
        let name = path.display().to_string();
        let text = player::play(&name, &script);
        if text == script {
            continue;
        }
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, &text).expect("a writable transcript");
            continue;
        }
        let mut pairs = script.lines().zip(text.lines()).enumerate();
        let first = pairs.find(|(_, (old, new))| old != new).map(|(at, (_, new))| (at + 1, new.to_owned()));
        wrong.push(format!("{name}: {first:?}"));
    }
    assert!(wrong.is_empty(), "differ from what is written (UPDATE=1 rewrites them):\n{}", wrong.join("\n"));
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/scripts/agents")
}
