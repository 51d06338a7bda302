//! API keys. Only the SHA-256 of a key is stored; the key itself is random, 256 bits
//! long and shown once, so a plain hash is as good as a slow one.
//!
//! Keys may be written by a `seawall key` command while `serve` runs; [`Store::revision`]
//! tells `serve` that they were.

use rusqlite::{OptionalExtension, Row, Transaction, params};
use seawall_model::{Agent, At, Class, Tenant, limits};

use crate::{Error, Store, Sync, column};

/// One API key, without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Short public id, by which people and logs name it.
    pub id: String,
    /// SHA-256 of the secret.
    pub hash: [u8; 32],
    /// What its maker called it.
    pub name: String,
    /// Whose calls it carries.
    pub tenant: Tenant,
    /// The class of its calls, where they name none.
    pub class: Option<Class>,
    /// Models it may use; empty means all.
    pub models: Vec<String>,
    /// When it was made.
    pub created: At,
    /// When it stops working by itself.
    pub expires: Option<At>,
    /// When it was revoked.
    pub revoked: Option<At>,
    /// When it last carried a call, to within a minute or so.
    pub last_used: Option<At>,
    /// May it use the operations paths?
    pub admin: bool,
    /// May it use paths that pass through to an engine?
    pub pass_through: bool,
    /// The agent of its calls, where they name none.
    pub agent: Option<Agent>,
    /// The run of its calls, where they name none.
    pub run: Option<String>,
}

impl Key {
    /// Does it work at `now`: neither revoked nor expired?
    #[must_use]
    pub fn works(&self, now: At) -> bool {
        let passed = |end: Option<At>| end.is_some_and(|end| end <= now);
        !passed(self.revoked) && !passed(self.expires)
    }
}

impl Store {
    /// All keys, oldest first, revoked and expired ones included.
    ///
    /// # Errors
    /// If the disk fails or a row cannot be understood.
    pub fn keys(&self) -> Result<Vec<Key>, Error> {
        let mut statement = self.conn.prepare_cached(
            "SELECT id, hash, name, tenant, class, models, created, expires, revoked, last_used, admin,
                    pass_through, agent, run
             FROM keys ORDER BY created, id LIMIT ?1",
        )?;
        let mut rows = statement.query(params![column::count(limits::KEYS_MAX)])?;
        let mut keys = Vec::new();
        while let Some(row) = rows.next()? {
            keys.push(read(row)?);
        }
        Ok(keys)
    }

    /// Stores a new key; durable on return.
    ///
    /// # Errors
    /// [`Error::KeyExists`] if its id or hash is taken, [`Error::KeysFull`] at the limit,
    /// [`Error::BadName`] if a model name is empty or spans lines.
    pub fn add_key(&mut self, key: &Key) -> Result<(), Error> {
        if let Some(model) = key.models.iter().find(|model| model.is_empty() || model.contains('\n')) {
            let what = format!("the model name {model:?}");
            return Err(Error::BadName { what, why: "it is empty or spans lines" });
        }
        self.write(Sync::Full, |transaction| {
            let count: i64 = transaction.query_row("SELECT count(*) FROM keys", [], |row| row.get(0))?;
            if count >= column::count(limits::KEYS_MAX) {
                return Err(Error::KeysFull { max: limits::KEYS_MAX });
            }
            let taken = transaction
                .query_row("SELECT 1 FROM keys WHERE id = ?1 OR hash = ?2", params![key.id, key.hash], |_| {
                    Ok(())
                })
                .optional()?;
            if taken.is_some() {
                return Err(Error::KeyExists { id: key.id.clone() });
            }
            insert(transaction, key)?;
            bump(transaction)
        })
    }

    /// Revokes a key from `at` on; durable on return. False if there is none of this id
    /// or it was revoked before (the first revocation's time stays).
    ///
    /// # Errors
    /// If the disk fails.
    pub fn revoke_key(&mut self, id: &str, at: At) -> Result<bool, Error> {
        self.write(Sync::Full, |transaction| {
            let changed = transaction.execute(
                "UPDATE keys SET revoked = ?2 WHERE id = ?1 AND revoked IS NULL",
                params![id, column::time(at)],
            )?;
            if changed > 0 {
                bump(transaction)?;
            }
            Ok(changed > 0)
        })
    }

    /// Removes a key that no longer works at `now`, to make room; durable on return. False
    /// if there is none of this id or it still works: revoke it first.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn remove_key(&mut self, id: &str, now: At) -> Result<bool, Error> {
        self.write(Sync::Full, |transaction| {
            let removed = transaction.execute(
                "DELETE FROM keys WHERE id = ?1 AND (revoked <= ?2 OR expires <= ?2)",
                params![id, column::time(now)],
            )?;
            if removed > 0 {
                bump(transaction)?;
            }
            Ok(removed > 0)
        })
    }

    /// Notes when keys, by id, were last used. Unknown ids are passed over, and a time
    /// never moves back. Does not count as a revision.
    ///
    /// # Errors
    /// If the disk fails; then none of the batch is noted.
    pub fn key_used(&mut self, batch: &[(String, At)]) -> Result<(), Error> {
        if batch.is_empty() {
            return Ok(());
        }
        self.write(Sync::Normal, |transaction| {
            let mut statement = transaction.prepare_cached(
                "UPDATE keys SET last_used = ?2 WHERE id = ?1 AND (last_used IS NULL OR last_used < ?2)",
            )?;
            for (id, at) in batch {
                statement.execute(params![id, column::time(*at)])?;
            }
            Ok(())
        })
    }

    /// Rises whenever a key is added, revoked or removed, by any process. Reads one row that is
    /// always in memory: cheap enough to ask every second.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn revision(&self) -> Result<u64, Error> {
        let mut statement = self.conn.prepare_cached("SELECT count FROM revision")?;
        Ok(column::unsigned(statement.query_row([], |row| row.get(0))?))
    }
}

fn bump(transaction: &Transaction<'_>) -> Result<(), Error> {
    transaction.execute("UPDATE revision SET count = count + 1", [])?;
    Ok(())
}

fn insert(transaction: &Transaction<'_>, key: &Key) -> Result<(), Error> {
    transaction.execute(
        "INSERT INTO keys (id, hash, name, tenant, class, models, created, expires, revoked, last_used, admin,
             pass_through, agent, run)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
        params![
            key.id,
            key.hash,
            key.name,
            key.tenant.as_str(),
            key.class.map(Class::as_str),
            key.models.join("\n"),
            column::time(key.created),
            key.expires.map(column::time),
            key.revoked.map(column::time),
            key.last_used.map(column::time),
            key.admin,
            key.pass_through,
            key.agent.as_ref().map(Agent::as_str),
            key.run,
        ],
    )?;
    Ok(())
}

fn read(row: &Row<'_>) -> Result<Key, Error> {
    let id: String = row.get(0)?;
    let tenant: String = row.get(3)?;
    let tenant = Tenant::parse(&tenant)
        .map_err(|error| Error::corrupt(format!("key {id} has the tenant {tenant:?}: {error}")))?;
    let class = match row.get::<_, Option<String>>(4)? {
        None => None,
        Some(name) => Some(
            Class::from_name(&name)
                .ok_or_else(|| Error::corrupt(format!("key {id} has the class {name:?}")))?,
        ),
    };
    let agent = match row.get::<_, Option<String>>(12)? {
        None => None,
        Some(name) => Some(
            Agent::parse(&name)
                .map_err(|error| Error::corrupt(format!("key {id} has the agent {name:?}: {error}")))?,
        ),
    };
    let models: String = row.get(5)?;
    let time = |index| row.get::<_, Option<i64>>(index).map(|value| value.map(column::at));
    Ok(Key {
        hash: row.get(1)?,
        name: row.get(2)?,
        tenant,
        class,
        models: models.lines().map(str::to_owned).collect(),
        created: column::at(row.get(6)?),
        expires: time(7)?,
        revoked: time(8)?,
        last_used: time(9)?,
        admin: row.get(10)?,
        pass_through: row.get(11)?,
        agent,
        run: row.get(13)?,
        id,
    })
}
