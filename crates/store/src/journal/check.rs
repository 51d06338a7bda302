//! Evidence: is the journal what was written, and what is in it, line by line?

use std::io::Write;
use std::ops::RangeInclusive;

use rusqlite::{OptionalExtension, params};
use seawall_model::journal::Record;
use seawall_model::limits;

use super::blobs::hex;
use super::codec::{Digest, Noun, read};
use super::json::Json;
use super::rows::{agent_digest, run_key};
use super::{Of, Reader, chain, run_of};
use crate::{Error, column};

/// What a check of the chain found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Records looked at.
    pub records: u64,
    /// Shards that are whole.
    pub shards: Vec<Checked>,
    /// The first thing that is wrong.
    pub first_bad: Option<Bad>,
}

/// A shard that is whole from its cut to its end. Whoever can write the file can write
/// another whole chain: the end's hash, noted elsewhere, tells the two apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checked {
    /// The shard.
    pub shard: u8,
    /// The last record that was cut away; 0 if none was.
    pub cut: u64,
    /// The last record.
    pub seq: u64,
    /// Its hash.
    pub hash: [u8; 32],
}

/// Where the chain is broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bad {
    /// The shard.
    pub shard: u8,
    /// The first record that is not as it was written, or is missing.
    pub seq: u64,
    /// In words.
    pub what: String,
}

/// A shard's two ends as its row has them.
struct Ends {
    seq: u64,
    hash: Digest,
    cut: u64,
    cut_hash: Digest,
}

/// How far the check of a shard is.
struct Walk {
    seq: u64,
    hash: Digest,
}

impl Reader {
    /// Recomputes the chains of these shards. What is added meanwhile is not looked at.
    ///
    /// # Errors
    /// If the disk fails. What is wrong with records is the report's to say.
    pub fn verify(&self, shards: RangeInclusive<u8>) -> Result<Report, Error> {
        let mut report = Report::default();
        for shard in shards {
            let Some(ends) = self.ends(shard)? else { continue };
            if let Some(bad) = self.verify_shard(shard, &ends, &mut report.records)? {
                report.first_bad = Some(bad);
                break;
            }
            let Ends { seq, hash, cut, .. } = ends;
            report.shards.push(Checked { shard, cut, seq, hash });
        }
        Ok(report)
    }

    fn ends(&self, shard: u8) -> Result<Option<Ends>, Error> {
        let sql = "SELECT seq, hash, cut_seq, cut_hash FROM shards WHERE shard = ?1";
        let mut statement = self.conn.prepare_cached(sql)?;
        let row = statement.query_row([shard], |row| {
            Ok((row.get(0)?, row.get::<_, Vec<u8>>(1)?, row.get(2)?, row.get::<_, Vec<u8>>(3)?))
        });
        let Some((seq, hash, cut, cut_hash)) = row.optional()? else { return Ok(None) };
        Ok(Some(Ends {
            seq: column::unsigned(seq),
            hash: chain::stored(&hash, "a shard")?,
            cut: column::unsigned(cut),
            cut_hash: chain::stored(&cut_hash, "a shard's cut")?,
        }))
    }

    fn verify_shard(&self, shard: u8, ends: &Ends, records: &mut u64) -> Result<Option<Bad>, Error> {
        let mut walk = Walk { seq: ends.cut, hash: ends.cut_hash };
        let bad = |seq, what: &str| Ok(Some(Bad { shard, seq, what: what.to_owned() }));
        while walk.seq < ends.seq {
            let before = walk.seq;
            if let Some(found) = self.verify_page(shard, ends.seq, &mut walk, records)? {
                // It may have been cut away since we began: then go on from the cut.
                match self.ends(shard)? {
                    Some(now) if now.cut > walk.seq => walk = Walk { seq: now.cut, hash: now.cut_hash },
                    _ => return Ok(Some(found)),
                }
            } else if walk.seq == before {
                match self.ends(shard)? {
                    Some(now) if now.cut > walk.seq => walk = Walk { seq: now.cut, hash: now.cut_hash },
                    _ => return bad(walk.seq + 1, "it is missing, and so are all after it"),
                }
            }
        }
        if walk.seq == ends.seq && walk.hash != ends.hash {
            return bad(walk.seq, "the shard's row has another hash for its last record");
        }
        if self.beyond(shard)? {
            return bad(ends.seq + 1, "there are records after the last that the shard's row knows");
        }
        Ok(None)
    }

    /// Are there records after what the shard's row says is the last?
    fn beyond(&self, shard: u8) -> Result<bool, Error> {
        let sql = "SELECT EXISTS (SELECT 1 FROM journal WHERE shard = ?1
                       AND seq > (SELECT seq FROM shards WHERE shard = ?1))";
        Ok(self.conn.prepare_cached(sql)?.query_row([shard], |row| row.get(0))?)
    }

    fn verify_page(
        &self,
        shard: u8,
        last: u64,
        walk: &mut Walk,
        records: &mut u64,
    ) -> Result<Option<Bad>, Error> {
        let mut statement = self.conn.prepare_cached(
            "SELECT seq, epoch, body, hash, at, kind, agent, run FROM journal
             WHERE shard = ?1 AND seq > ?2 AND seq <= ?3 ORDER BY seq LIMIT ?4",
        )?;
        let limit = column::count(limits::JOURNAL_PAGE_ROWS);
        let mut rows =
            statement.query(params![shard, column::amount(walk.seq), column::amount(last), limit])?;
        while let Some(row) = rows.next()? {
            let next = walk.seq + 1;
            let bad = |what: String| Ok(Some(Bad { shard, seq: next, what }));
            if column::unsigned(row.get(0)?) != next {
                return bad("it is missing".to_owned());
            }
            let body = row.get_ref(2)?.as_blob()?;
            let hash = chain::link(&walk.hash, shard, column::unsigned(row.get(1)?), next, body);
            if row.get_ref(3)?.as_blob()? != hash {
                return bad("it, or its place or hash, was changed".to_owned());
            }
            let record: Record = match read(body) {
                Ok((record, _)) => record,
                // Whole, as its hash says, but not for this Seawall to read.
                Err(flaw) => return bad(format!("it cannot be read: {flaw}")),
            };
            let columns = (row.get(4)?, row.get(5)?, row.get(6)?, row.get(7)?);
            let expected: (i64, String, Option<i64>, Option<i64>) = (
                column::time(record.at),
                record.event.kind().to_owned(),
                record.agent.as_ref().map(agent_digest),
                run_of(&record.event).map(run_key),
            );
            if columns != expected {
                return bad("the columns beside it were changed".to_owned());
            }
            *walk = Walk { seq: next, hash };
            *records += 1;
        }
        Ok(None)
    }

    /// Writes the records of these shards, one JSON object to a line, in order; answers
    /// with how many. Content (payloads) is given by size and SHA-256 alone unless
    /// `content` asks for it: guessable text can be found by its digest, so even then an
    /// export is not for everybody.
    ///
    /// # Errors
    /// If the disk fails, a record is damaged, or `out` takes no more.
    pub fn export(
        &self,
        shards: RangeInclusive<u8>,
        content: bool,
        out: &mut dyn Write,
    ) -> Result<u64, Error> {
        let mut count = 0;
        for shard in shards {
            let mut from = 0;
            loop {
                let page = self.history(&Of::Shard(shard), from, limits::JOURNAL_PAGE_ROWS)?;
                let Some(last) = page.last() else { break };
                from = last.entry.seq + 1;
                for kept in &page {
                    let mut json = Json::new(content);
                    json.open();
                    json.key("shard");
                    json.number(u64::from(shard));
                    json.key("epoch");
                    json.number(kept.entry.epoch);
                    json.key("seq");
                    json.number(kept.entry.seq);
                    json.key("hash");
                    json.text(&hex(&kept.hash));
                    json.key("record");
                    kept.entry.record.show(&mut json);
                    json.close();
                    json.raw("\n");
                    let written = out.write_all(json.out.as_bytes());
                    written.map_err(|error| Error::Failed { why: format!("the export: {error}") })?;
                    count += 1;
                }
            }
        }
        Ok(count)
    }
}
