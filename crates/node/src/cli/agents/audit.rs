//! `seawall audit`: the journal as evidence. Reads the data folder itself, so that it works
//! beside a running server, without one, and on a copy somewhere else.

use std::io::{self, Write};

use seawall_model::limits;
use seawall_store::Error;
use seawall_store::journal::{Books, Reader, Report};
use serde_json::{Value, json};

use crate::cli::args::{ConfigArgs, JsonArgs};
use crate::cli::key::hex;
use crate::cli::print::{self, BAD, Cell, DIM, GOOD, Table};
use crate::cli::server::{Failed, failed};
use crate::cli::{check, code};
use crate::config::Loaded;

use super::args::{AuditCommand, ExportArgs, VerifyArgs};
use super::attempt;

pub(super) fn run(command: &AuditCommand) -> i32 {
    match command {
        AuditCommand::Verify(args) => attempt(args.json, || verify(args)),
        AuditCommand::Export(args) => attempt(JsonArgs::default(), || export(args)),
    }
}

/// The journal of the configured data folder.
fn open(args: &ConfigArgs) -> Result<Reader, Failed> {
    let flags = args.flags();
    let loaded = Loaded::read(&flags).map_err(|problems| {
        check::report(&flags, &problems);
        failed(code::USAGE, "the data folder is not known", "name it with --data")
    })?;
    Reader::open(&loaded.config.data).map_err(|error| in_words(&error))
}

fn in_words(error: &Error) -> Failed {
    let exit = match error {
        Error::NotOpen { .. } | Error::Newer { .. } => code::CANT_CREATE,
        Error::InUse { .. } | Error::Busy => code::UNAVAILABLE,
        Error::Corrupt { .. } => code::NOT_WELL,
        _ => code::IO,
    };
    failed(exit, error.to_string(), "")
}

fn verify(args: &VerifyArgs) -> Result<i32, Failed> {
    let reader = open(&args.config)?;
    let report = reader.verify(0..=u8::MAX).map_err(|error| in_words(&error))?;
    let missing = missing(&report);
    let books = args.books.then(|| reconcile(&reader)).transpose().map_err(|error| in_words(&error))?;
    let right = books.as_ref().is_none_or(|books| books.wrong.is_empty());
    let whole = report.first_bad.is_none() && missing.is_none() && right;
    if args.json.json {
        let mut json = as_json(&report, missing);
        if let Some(books) = &books {
            let wrong = books.wrong.iter().map(|wrong| json!({ "of": wrong.of, "what": wrong.what }));
            let (agents, runs) = (books.agents, books.runs);
            json["books"] = json!({
                "right": right, "agents": agents, "runs": runs, "wrong": wrong.collect::<Vec<_>>(),
            });
        }
        print::json(&json);
    } else {
        print::text(&render(&report));
        if let Some(books) = &books {
            print::text(&render_books(books));
        }
        if let Some(bad) = &report.first_bad {
            let what =
                format!("the journal is broken in shard {} at sequence {}: {}", bad.shard, bad.seq, bad.what);
            print::failure(&what, "whatever follows it in the shard proves nothing any more");
        } else if let Some(shard) = missing {
            print::failure(&format!("the row of shard {shard} is missing from the journal"), "");
        }
    }
    Ok(if whole { code::OK } else { code::NOT_WELL })
}

/// Looks at the rows of all shards.
fn reconcile(reader: &Reader) -> Result<Books, Error> {
    let mut books = Books::default();
    for shard in 0..limits::SHARDS {
        books.add(reader.reconcile_shard(shard)?);
    }
    Ok(books)
}

fn render_books(books: &Books) -> String {
    let mut out: String = books.wrong.iter().map(|wrong| format!("{}: {}\n", wrong.of, wrong.what)).collect();
    let (style, word) = if books.wrong.is_empty() { (GOOD, "right") } else { (BAD, "wrong") };
    let (agents, runs) = (books.agents, books.runs);
    out.push_str(&format!(
        "{style}{word}{style:#}: {agents} agents at work and {runs} live runs looked at\n"
    ));
    out
}

/// The first of the shards that every journal has which this one lacks.
fn missing(report: &Report) -> Option<u8> {
    let known = |shard: &u8| report.shards.iter().any(|checked| checked.shard == *shard);
    (report.first_bad.is_none()).then(|| (0..limits::SHARDS).find(|shard| !known(shard))).flatten()
}

fn as_json(report: &Report, missing: Option<u8>) -> Value {
    let shards: Vec<Value> = report
        .shards
        .iter()
        .map(|shard| {
            json!({ "shard": shard.shard, "cut": shard.cut, "seq": shard.seq, "hash": hex(&shard.hash) })
        })
        .collect();
    let bad = match (&report.first_bad, missing) {
        (Some(bad), _) => json!({ "shard": bad.shard, "seq": bad.seq, "what": bad.what }),
        (None, Some(shard)) => json!({ "shard": shard, "seq": null, "what": "its row is missing" }),
        (None, None) => Value::Null,
    };
    json!({ "ok": bad.is_null(), "records": report.records, "shards": shards, "first_bad": bad })
}

/// The shards that are whole, each with the hash of its last record, to be noted elsewhere.
fn render(report: &Report) -> String {
    let mut table = Table::new(&["shard", "records", "hash of the last"]);
    let used = report.shards.iter().filter(|shard| shard.seq > 0);
    for shard in used {
        let range = if shard.cut == 0 {
            format!("1..{}", shard.seq)
        } else {
            format!("{}..{}", shard.cut + 1, shard.seq)
        };
        table.row(vec![shard.shard.to_string().into(), range.into(), Cell::styled(hex(&shard.hash), DIM)]);
    }
    let (style, word) = if report.first_bad.is_some() { (BAD, "broken") } else { (GOOD, "whole") };
    let mut out = if table.is_empty() { String::new() } else { table.render() + "\n" };
    let (records, shards) = (report.records, report.shards.len());
    out.push_str(&format!("{style}{word}{style:#}: {records} records looked at, {shards} shards whole\n"));
    out
}

fn export(args: &ExportArgs) -> Result<i32, Failed> {
    let reader = open(&args.config)?;
    let shards = args.shard.map_or(0..=u8::MAX, |shard| shard..=shard);
    let mut out = Piped { inner: print::pipe(), gone: false };
    let written = reader.export(shards, args.content, &mut out).and_then(|count| {
        let flushed = out.flush();
        flushed.map_err(|error| Error::Failed { why: format!("the export: {error}") })?;
        Ok(count)
    });
    match written {
        Ok(count) => {
            print::note(&format!("{count} records"));
            Ok(code::OK)
        }
        // `seawall audit export | head` is a normal thing to do.
        Err(_) if out.gone => Ok(code::OK),
        Err(error) => Err(in_words(&error)),
    }
}

/// Notices when nobody reads any more.
struct Piped<W> {
    inner: W,
    gone: bool,
}

impl<W: Write> Write for Piped<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes);
        self.gone |= matches!(&written, Err(error) if error.kind() == io::ErrorKind::BrokenPipe);
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = self.inner.flush();
        self.gone |= matches!(&flushed, Err(error) if error.kind() == io::ErrorKind::BrokenPipe);
        flushed
    }
}

#[cfg(test)]
mod tests {
    use seawall_store::journal::{Bad, Checked};

    use super::*;

    fn whole() -> Report {
        let shard = |shard| Checked { shard, cut: 0, seq: u64::from(shard == 3) * 7, hash: [0xab; 32] };
        Report { records: 7, shards: (0..limits::SHARDS).map(shard).collect(), first_bad: None }
    }

    #[test]
    fn a_whole_journal_is_shown_by_the_ends_of_its_shards() {
        let report = whole();
        insta::assert_snapshot!(print::plain(&render(&report)), @r"
        shard  records  hash of the last
        3      1..7     abababababababababababababababababababababababababababababababab

        whole: 7 records looked at, 16 shards whole
        ");
        assert_eq!(missing(&report), None);
        assert_eq!(as_json(&report, None)["ok"], true);
    }

    #[test]
    fn a_broken_one_says_where() {
        let mut report = whole();
        report.shards.truncate(3);
        assert_eq!(missing(&report), Some(3), "a shard's row cannot just be taken away");
        report.first_bad = Some(Bad { shard: 3, seq: 5, what: "it is missing".into() });
        let json = as_json(&report, missing(&report));
        assert_eq!(json["first_bad"], json!({ "shard": 3, "seq": 5, "what": "it is missing" }));
        assert!(print::plain(&render(&report)).contains("broken: 7 records"));
    }

    #[test]
    fn a_reader_that_leaves_is_noticed() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut piped = Piped { inner: Gone, gone: false };
        assert!(piped.write(b"x").is_err() && piped.gone);
    }
}
