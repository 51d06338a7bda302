//! A tool server that is a process of ours: in a group of its own, so that it ends with
//! everything that it started, and without our environment, which holds keys.

use std::collections::VecDeque;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use seawall_model::limits::{TOOL_WORDS_BYTES_KEPT, TOOL_WORDS_BYTES_PER_SECOND};
use tokio::io::AsyncReadExt as _;
use tokio::process::{ChildStderr, ChildStdin, ChildStdout, Command};

use super::pace::Pace;
use crate::config::load::env;
use crate::config::tool::ChildConfig;
use crate::tasks::{Kind, Tasks};

/// Of our environment a tool server gets only what programs need to run at all; the same
/// that other MCP clients pass on.
const INHERITED: [&str; 11] =
    ["PATH", "HOME", "USER", "LOGNAME", "SHELL", "TERM", "LANG", "LC_ALL", "TZ", "TMPDIR", "XDG_RUNTIME_DIR"];
/// A server whose input is closed has so long to end by itself (MCP 2025-11-25, stdio
/// shutdown), and as long again after SIGTERM.
const GRACE: Duration = Duration::from_millis(2_000);
/// A server that closed its output is about to end: so long is waited for its exit status.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// A running server.
#[derive(Debug)]
pub(super) struct Child {
    process: tokio::process::Child,
    group: Group,
    words: Words,
}

/// Its process group, killed when this is dropped.
#[derive(Debug)]
struct Group(Option<Pid>);

impl Group {
    fn signal(&self, signal: Signal) {
        // It may have ended by itself: there is nobody left to tell then.
        if let Some(pid) = self.0 {
            let _ = kill_process_group(pid, signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // A group keeps its number while anything in it lives, so this meets no stranger
        // unless the number was given out anew within the moment since the last one ended.
        self.signal(Signal::KILL);
    }
}

/// The end of what a server wrote to its standard error. It may be content, so it is kept for
/// an operator who asks, and not logged (I11).
#[derive(Clone, Debug, Default)]
pub(super) struct Words(Arc<Mutex<VecDeque<u8>>>);

impl Words {
    fn add(&self, bytes: &[u8]) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend(bytes);
        let over = kept.len().saturating_sub(TOOL_WORDS_BYTES_KEPT);
        kept.drain(..over);
    }

    /// As text.
    pub(super) fn text(&self) -> String {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(kept.make_contiguous()).into_owned()
    }
}

impl Child {
    /// Starts it; answers with what it is spoken to through.
    pub(super) fn start(
        config: &ChildConfig,
        words: Words,
        tasks: &Tasks,
    ) -> io::Result<(Self, ChildStdout, ChildStdin)> {
        let (program, args) = config.command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let mut command = Command::new(program);
        command.args(args).env_clear();
        command.envs(INHERITED.into_iter().filter_map(|name| Some((name, env(name)?))));
        command.envs(config.env.iter().map(|(name, value)| (name, value.reveal())));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.process_group(0).kill_on_drop(true).spawn()?;
        let group = Group(process.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)));
        let (Some(stdin), Some(stdout), Some(stderr)) =
            (process.stdin.take(), process.stdout.take(), process.stderr.take())
        else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        // Ends with the last process that holds the other end.
        tasks.spawn(Kind::ToolServer, listen(stderr, words.clone()));
        Ok((Self { process, group, words }, stdout, stdin))
    }

    /// Why it ended, after it closed its output.
    pub(super) async fn why(&mut self) -> String {
        let ended = tokio::time::timeout(LAST_WORDS, self.process.wait()).await;
        let last = if self.words.text().is_empty() { "" } else { "; its last words are in its state" };
        match ended {
            Ok(Ok(status)) => format!("the tool server {}{last}", describe(status)),
            Ok(Err(why)) => format!("the tool server is lost: {why}"),
            Err(_) => format!("the tool server closed its output{last}"),
        }
    }

    /// Ends it, its input being closed: by itself, by SIGTERM, by SIGKILL, whichever helps
    /// first; and what it started with it.
    pub(super) async fn end(mut self) {
        if tokio::time::timeout(GRACE, self.process.wait()).await.is_err() {
            self.group.signal(Signal::TERM);
            let _ = tokio::time::timeout(GRACE, self.process.wait()).await;
        }
    }
}

fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit status {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

/// Empties the pipe, or the server would stop at a full one.
async fn listen(mut stderr: ChildStderr, words: Words) {
    let mut piece = vec![0; TOOL_WORDS_BYTES_KEPT];
    let mut pace = Pace::new(u64::MAX, TOOL_WORDS_BYTES_PER_SECOND);
    while let Ok(len @ 1..) = stderr.read(&mut piece).await {
        words.add(&piece[..len]);
        pace.heard(0, len);
        pace.free().await;
        tracing::debug!(bytes = len, "a tool server wrote to its standard error");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_words_the_last_are_kept() {
        let words = Words::default();
        for _ in 0..TOOL_WORDS_BYTES_KEPT {
            words.add(b"ab");
        }
        words.add(b"the end");
        assert_eq!(words.text().len(), TOOL_WORDS_BYTES_KEPT);
        assert!(words.text().ends_with("abthe end"));
    }
}
