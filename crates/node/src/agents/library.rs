//! The definitions of agents: those in force, and older versions that runs still are on.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use seawall_kernel::agents::gate::Pattern;
use seawall_kernel::agents::rules::Kind;

use crate::config::Problem;

use super::define::{self, Definition, Reading};
use super::handler::{Catalogue, Kit, Tool};

/// Older versions kept in memory.
const OLD_MAX: usize = 256;

/// Beside the archived versions: which file each one in force was read from.
const SOURCES: &str = "in-force.json";

/// All definitions. Readers never wait for a reload.
#[derive(Debug)]
pub struct Library {
    /// Where every version that was ever in force is kept.
    archive: PathBuf,
    shelf: Mutex<Shelf>,
}

#[derive(Debug, Default)]
struct Shelf {
    newest: BTreeMap<Arc<str>, Arc<Definition>>,
    /// Of which files; `None` until they were read for the first time.
    sources: Option<Sources>,
    troubles: Vec<Trouble>,
    old: HashMap<(Arc<str>, Arc<str>), Arc<Definition>>,
    tools: Vec<Tool>,
    /// Tool servers whose tools are not known yet.
    coming: Vec<Arc<str>>,
    kits: HashMap<(Arc<str>, Arc<str>), Arc<Kit>>,
}

/// Which type a file defined last, and by which version: what stays in force if it cannot be
/// read any more.
type Sources = BTreeMap<String, (String, String)>;

/// What is wrong with a file of the folder, and what that means for the type it defines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// The file's name in the folder.
    pub file: String,
    /// All that is wrong with it.
    pub problems: Vec<Problem>,
    /// The type that it defined when it could last be read; before that, what its name says.
    pub kind: String,
    /// The version of that type that is in force all the same.
    pub version: Option<Arc<str>>,
}

impl Trouble {
    /// What it means, for the log and for people.
    #[must_use]
    pub fn outcome(&self) -> String {
        match &self.version {
            Some(version) => format!("type {} stays as it was, on version {version}", self.kind),
            None => format!("type {} is out of service until the file is mended", self.kind),
        }
    }
}

/// What putting definitions into force changed for others.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Shelved {
    /// Files that are not in force as they are.
    pub troubles: Vec<Trouble>,
    /// Types that were in force, and are not any more.
    pub gone: Vec<Arc<str>>,
}

/// A file as it was.
#[derive(Debug)]
pub struct Undo {
    path: PathBuf,
    before: Option<String>,
}

impl Undo {
    /// The file's name in its folder.
    #[must_use]
    pub fn file(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Puts the file back as it was.
    ///
    /// # Errors
    /// In words: it cannot be written.
    pub fn undo(self) -> Result<(), String> {
        self.put(self.before.as_deref())
    }

    #[expect(clippy::disallowed_methods, reason = "called by worker threads, which may wait")]
    fn put(&self, text: Option<&str>) -> Result<(), String> {
        let failed = |why: std::io::Error| format!("{}: {why}", self.path.display());
        let Some(text) = text else {
            return match std::fs::remove_file(&self.path) {
                Err(why) if why.kind() != std::io::ErrorKind::NotFound => Err(failed(why)),
                _ => Ok(()),
            };
        };
        if let Some(folder) = self.path.parent() {
            std::fs::create_dir_all(folder).map_err(failed)?;
        }
        write_durably(&self.path, text)
    }
}

/// What is wrong with a file that cannot be read.
fn unreadable(why: &std::io::Error) -> Problem {
    let hint = match why.kind() {
        std::io::ErrorKind::PermissionDenied => "let the user that Seawall runs as read it",
        std::io::ErrorKind::InvalidData => "a definition is text in UTF-8",
        std::io::ErrorKind::NotFound => "it is a link to a file that is not there",
        _ => "",
    };
    let what = format!("the file cannot be read: {why}");
    Problem { line: None, key: String::new(), what, hint: hint.to_owned() }
}

/// Writes a file whole at once, so that whoever looks meanwhile sees it as it was or as it
/// is to be; on the disk when this returns, with its name.
///
/// # Errors
/// In words.
#[expect(clippy::disallowed_methods, reason = "at start, on reload and on worker threads, which may wait")]
pub(super) fn write_durably(path: &Path, text: &str) -> Result<(), String> {
    let unfinished = path.with_extension("part");
    let write = || {
        let mut file = std::fs::File::create(&unfinished)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&unfinished, path)?;
        match path.parent() {
            // Elsewhere a folder cannot be opened, and names are durable by themselves.
            Some(folder) if cfg!(unix) => std::fs::File::open(folder)?.sync_all(),
            _ => Ok(()),
        }
    };
    write().map_err(|why: std::io::Error| format!("{}: {why}", path.display()))
}

impl Library {
    /// An empty library that keeps versions in this folder.
    #[must_use]
    pub fn new(archive: PathBuf) -> Self {
        Self { archive, shelf: Mutex::default() }
    }

    /// Reads every definition in a folder; a folder that is not there holds none. A file that
    /// cannot be read is a problem like any other, and hides none of the others'.
    ///
    /// # Errors
    /// In words: the folder cannot be read.
    #[expect(clippy::disallowed_methods, reason = "at start and on reload, on a thread that may wait")]
    pub fn read(folder: &Path) -> Result<(Reading, Vec<(String, String)>), String> {
        let failed = |why: std::io::Error| format!("{}: {why}", folder.display());
        let entries = match std::fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(why) if why.kind() == std::io::ErrorKind::NotFound => return Ok(Default::default()),
            Err(why) => return Err(failed(why)),
        };
        let (mut files, mut unread) = (Vec::new(), Vec::new());
        for entry in entries {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_none_or(|extension| extension != "toml") {
                continue;
            }
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            match std::fs::read_to_string(&path) {
                Ok(text) => files.push((name, text)),
                // Removed since the folder was listed.
                Err(why) if why.kind() == std::io::ErrorKind::NotFound && !path.is_symlink() => {}
                Err(why) => unread.push((name, unreadable(&why))),
            }
        }
        files.sort();
        let mut reading = define::read_all(&files);
        reading.problems.extend(unread);
        reading.problems.sort_by(|(one, _), (other, _)| one.cmp(other));
        Ok((reading, files))
    }

    /// Is the folder gone from which the definitions in force were read? Whoever means to
    /// remove them all removes the files: a folder vanishes with a disk that is not mounted.
    #[must_use]
    pub fn has_lost(&self, folder: &Path) -> bool {
        !self.lock().newest.is_empty() && matches!(folder.try_exists(), Ok(false))
    }

    /// Puts definitions into force in place of those before, and keeps their texts. A file
    /// that cannot be read touches its own type alone: that stays on its last version.
    ///
    /// # Errors
    /// In words: a version cannot be kept, and so no run could go on with it later.
    pub fn shelve(&self, reading: Reading, files: &[(String, String)]) -> Result<Shelved, String> {
        let mut sources = Sources::new();
        for (name, text) in files {
            let stem = name.strip_suffix(".toml").unwrap_or(name);
            let known = reading.definitions.values();
            let Ok((definition, _)) = Definition::from_toml(stem, text) else { continue };
            if known.clone().any(|known| known.version == definition.version && known.kind == definition.kind)
            {
                self.keep(&definition, stem, text)?;
                sources.insert(name.clone(), (definition.kind.to_string(), definition.version.to_string()));
            }
        }
        let known = self.lock().sources.clone();
        let before = known.clone().unwrap_or_else(|| self.read_sources());
        let mut newest = reading.definitions;
        let troubles = self.hold(&mut newest, &mut sources, &before, reading.problems);
        if known.is_none() || sources != before {
            self.keep_sources(&sources)?;
        }
        let mut shelf = self.lock();
        let were = before.values().map(|(kind, _)| Arc::from(kind.as_str()));
        let were: BTreeSet<Arc<str>> = were.chain(shelf.newest.keys().cloned()).collect();
        let gone = were.into_iter().filter(|kind| !newest.contains_key(kind)).collect();
        shelf.newest = newest;
        shelf.sources = Some(sources);
        shelf.troubles.clone_from(&troubles);
        shelf.kits.clear();
        Ok(Shelved { troubles, gone })
    }

    /// Keeps in force what files defined that cannot be read any more.
    fn hold(
        &self,
        newest: &mut BTreeMap<Arc<str>, Arc<Definition>>,
        sources: &mut Sources,
        before: &Sources,
        problems: Vec<(String, Problem)>,
    ) -> Vec<Trouble> {
        let mut by_file: BTreeMap<String, Vec<Problem>> = BTreeMap::new();
        for (file, problem) in problems {
            by_file.entry(file).or_default().push(problem);
        }
        let mut troubles = Vec::new();
        for (file, problems) in by_file {
            let last = before.get(&file);
            let stem = file.strip_suffix(".toml").unwrap_or(&file);
            let kind = last.map_or(stem, |(kind, _)| kind).to_owned();
            // Another file may define it by now.
            if !newest.contains_key(&*kind) {
                let held = self.of(&kind);
                let held = held.or_else(|| self.version(&kind, &last?.1));
                if let Some(held) = held {
                    sources.insert(file.clone(), (kind.clone(), held.version.to_string()));
                    newest.insert(held.kind.clone(), held);
                }
            }
            let version = newest.get(&*kind).map(|definition| definition.version.clone());
            troubles.push(Trouble { file, problems, kind, version });
        }
        troubles
    }

    /// What stands wrong in the folder of definitions since it was last read.
    #[must_use]
    pub fn troubles(&self) -> Vec<Trouble> {
        self.lock().troubles.clone()
    }

    /// The sources when this installation last ran. Without them, a file that cannot be read
    /// has no last version: the archive also holds what never was in force.
    #[expect(clippy::disallowed_methods, reason = "at start")]
    fn read_sources(&self) -> Sources {
        let text = std::fs::read_to_string(self.archive.join(SOURCES)).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    #[expect(clippy::disallowed_methods, reason = "at start and on reload, on a thread that may wait")]
    fn keep_sources(&self, sources: &Sources) -> Result<(), String> {
        let failed = |why: std::io::Error| format!("{}: {why}", self.archive.display());
        std::fs::create_dir_all(&self.archive).map_err(failed)?;
        let text = serde_json::to_string(sources).map_err(|why| why.to_string())?;
        write_durably(&self.archive.join(SOURCES), &text)
    }

    #[expect(clippy::disallowed_methods, reason = "at start and on reload, on a thread that may wait")]
    fn keep(&self, definition: &Definition, stem: &str, text: &str) -> Result<(), String> {
        let path = self.path(&definition.kind, &definition.version);
        // One that a power cut left empty or in part is written anew.
        if self.read_archived(&definition.kind, &definition.version).is_some() {
            return Ok(());
        }
        let failed = |why: std::io::Error| format!("{}: {why}", path.display());
        std::fs::create_dir_all(&self.archive).map_err(failed)?;
        // The stem comes first: it names the type where the text does not.
        let whole = format!("{stem}\n{text}");
        write_durably(&path, &whole)
    }

    fn path(&self, kind: &str, version: &str) -> PathBuf {
        self.archive.join(format!("{kind}-{version}.toml"))
    }

    /// The tools there are, for all kits, and the servers whose tools are not known yet.
    pub fn stock(&self, tools: Vec<Tool>, coming: Vec<Arc<str>>) {
        let mut shelf = self.lock();
        shelf.coming = coming;
        if shelf.tools != tools {
            shelf.tools = tools;
            shelf.kits.clear();
        }
    }

    /// The server, reached for the first time just now, from which tools of this kit that
    /// are not there may still come.
    #[must_use]
    pub fn coming(&self, kit: &Kit) -> Option<Arc<str>> {
        let shelf = self.lock();
        let server = |pattern: &Arc<str>| pattern.split_once('.').map(|(server, _)| Pattern::new(server));
        let coming = |server: Pattern| shelf.coming.iter().find(|name| server.fits(name));
        kit.unmet().iter().filter_map(server).find_map(coming).cloned()
    }

    /// Every definition in force.
    #[must_use]
    pub fn newest(&self) -> Vec<Arc<Definition>> {
        self.lock().newest.values().cloned().collect()
    }

    /// The definition in force of a type.
    #[must_use]
    pub fn of(&self, kind: &str) -> Option<Arc<Definition>> {
        self.lock().newest.get(kind).cloned()
    }

    /// The types as the kernel knows them.
    #[must_use]
    pub fn kinds(&self) -> Vec<Kind> {
        self.lock().newest.values().map(|definition| definition.rules()).collect()
    }

    /// One version of a type, from the archive where it is not in force any more.
    #[must_use]
    pub fn version(&self, kind: &str, version: &str) -> Option<Arc<Definition>> {
        let key = (Arc::from(kind), Arc::from(version));
        {
            let shelf = self.lock();
            let newest = shelf.newest.get(kind).filter(|definition| &*definition.version == version);
            if let Some(found) = newest.or_else(|| shelf.old.get(&key)) {
                return Some(found.clone());
            }
        }
        let found = Arc::new(self.read_archived(kind, version)?);
        let mut shelf = self.lock();
        if shelf.old.len() >= OLD_MAX {
            shelf.old.clear();
        }
        shelf.old.insert(key, found.clone());
        Some(found)
    }

    #[expect(clippy::disallowed_methods, reason = "called by worker threads, which may wait")]
    fn read_archived(&self, kind: &str, version: &str) -> Option<Definition> {
        let text = std::fs::read_to_string(self.path(kind, version)).ok()?;
        let (stem, text) = text.split_once('\n')?;
        let (definition, _) = Definition::from_toml(stem, text).ok()?;
        (*definition.version == *version).then_some(definition)
    }

    /// The text of a version as it was written, from the archive.
    #[expect(clippy::disallowed_methods, reason = "called by worker threads, which may wait")]
    #[must_use]
    pub fn text(&self, kind: &str, version: &str) -> Option<String> {
        let text = std::fs::read_to_string(self.path(kind, version)).ok()?;
        text.split_once('\n').map(|(_, text)| text.to_owned())
    }

    /// A version that says what another one says, but for these keys: kept like any other,
    /// and never in force. Answers with its name.
    ///
    /// # Errors
    /// In words: it is no definition, its texts are not kept, or this one cannot be.
    #[expect(clippy::disallowed_methods, reason = "called by worker threads, which may wait")]
    pub fn vary(
        &self,
        kind: &str,
        version: &str,
        changed: [(&str, Option<String>); 2],
    ) -> Result<Arc<str>, String> {
        let lost = || format!("the version {version} of `{kind}` is not kept any more");
        let whole = std::fs::read_to_string(self.path(kind, version)).map_err(|_| lost())?;
        let (stem, text) = whole.split_once('\n').ok_or_else(lost)?;
        let mut table: toml::Table = text.parse().map_err(|_| lost())?;
        for (key, value) in changed {
            value.map(|value| table.insert(key.to_owned(), toml::Value::String(value)));
        }
        let text = toml::to_string(&table).map_err(|why| why.to_string())?;
        let (definition, _) = Definition::from_toml(stem, &text).map_err(|problems| {
            // Lines of a text that nobody wrote say nothing.
            let said = problems.into_iter().map(|problem| Problem { line: None, ..problem }.to_string());
            said.collect::<Vec<_>>().join("\n")
        })?;
        self.keep(&definition, stem, &text)?;
        Ok(definition.version)
    }

    /// The file of a folder that defines this type.
    fn file_of(folder: &Path, kind: &str) -> Result<Option<PathBuf>, String> {
        let (_, files) = Self::read(folder)?;
        let defines = |(name, text): &&(String, String)| {
            let stem = name.strip_suffix(".toml").unwrap_or(name);
            Definition::from_toml(stem, text).is_ok_and(|(definition, _)| *definition.kind == *kind)
        };
        let file = files.iter().find(defines).map(|(name, _)| folder.join(name));
        // One that cannot be read as it is may still be this type's by its name.
        let named = folder.join(format!("{kind}.toml"));
        Ok(file.or_else(|| named.exists().then_some(named)))
    }

    /// Writes a type's file into a folder, or removes it. Answers with what puts it back
    /// as it was.
    ///
    /// # Errors
    /// In words: the folder cannot be written.
    #[expect(clippy::disallowed_methods, reason = "called by worker threads, which may wait")]
    pub fn write(folder: &Path, kind: &str, text: Option<&str>) -> Result<Undo, String> {
        let path = Self::file_of(folder, kind)?.unwrap_or_else(|| folder.join(format!("{kind}.toml")));
        let before = std::fs::read_to_string(&path).ok();
        let undo = Undo { path, before };
        undo.put(text)?;
        Ok(undo)
    }

    /// What a definition offers its agents, of the tools there are.
    #[must_use]
    pub fn kit(&self, definition: &Definition) -> Arc<Kit> {
        let key = (definition.kind.clone(), definition.version.clone());
        let mut shelf = self.lock();
        if let Some(kit) = shelf.kits.get(&key) {
            return kit.clone();
        }
        let agents = shelf.newest.values().map(|one| (one.kind.clone(), one.about.clone())).collect();
        let catalogue = Catalogue { tools: shelf.tools.clone(), agents };
        let kit = Arc::new(Kit::new(definition, &catalogue));
        if shelf.kits.len() >= OLD_MAX {
            shelf.kits.clear();
        }
        shelf.kits.insert(key, kit.clone());
        kit
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder that goes with the test.
    struct Folder(PathBuf);

    impl Drop for Folder {
        #[expect(clippy::disallowed_methods, reason = "a test")]
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn folder(name: &str) -> Folder {
        Folder(std::env::temp_dir().join(format!("seawall-library-{}-{name}", std::process::id())))
    }

    fn shelve(library: &Library, text: &str) -> Arc<Definition> {
        let files = [("a.toml".to_owned(), text.to_owned())];
        library.shelve(define::read_all(&files), &files).expect("kept");
        library.of("a").expect("in force")
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test")]
    fn a_version_that_a_power_cut_left_empty_is_written_again() {
        let folder = folder("empty");
        let text = "instructions = \"x\"\nmodel = \"m\"\n";
        let library = Library::new(folder.0.clone());
        let one = shelve(&library, text);
        let path = library.path("a", &one.version);
        std::fs::write(&path, "").expect("written");
        shelve(&library, text);
        assert_eq!(library.text("a", &one.version).as_deref(), Some(text));
    }

    #[test]
    fn a_version_varied_is_kept_and_not_in_force() {
        let folder = folder("varied");
        let library = Library::new(folder.0.clone());
        let one = shelve(&library, "instructions = \"x\"\nmodel = \"m\"\n[limits]\nsteps = 5\n");
        let vary = |instructions: Option<&str>, model: Option<&str>| {
            let changed = [("instructions", instructions), ("model", model)];
            library.vary("a", &one.version, changed.map(|(key, value)| (key, value.map(str::to_owned))))
        };
        let made = vary(Some("Be \"brief\".\n\tAnd kind."), None).expect("made");
        let version = library.version("a", &made).expect("kept");
        assert_eq!((&version.model, &version.allowance), (&one.model, &one.allowance));
        assert_ne!(version.instructions, one.instructions);
        assert_eq!(library.of("a").expect("in force").version, one.version);
        assert_eq!(&*library.version("a", &vary(None, Some("n")).expect("made")).expect("kept").model, "n");
        assert_eq!(vary(None, Some("m")).as_deref(), Ok(&*one.version), "nothing is another");
        assert!(vary(Some("{{nonsense}}"), None).is_err_and(|why| why.contains("nonsense")));
        assert!(library.vary("a", "000000000000", [("model", None), ("instructions", None)]).is_err());
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test")]
    fn a_file_that_cannot_be_read_hides_no_other() {
        let home = folder("unread");
        let agents = home.0.join("agents");
        std::fs::create_dir_all(agents.join("folder.toml")).expect("made");
        let write = |name: &str, text: &[u8]| std::fs::write(agents.join(name), text).expect("written");
        write("good.toml", b"instructions = \"x\"\nmodel = \"m\"\n");
        write("bad.toml", b"instructions = 1\n");
        write("latin.toml", b"instructions = \"\xe9\"\n");
        std::os::unix::fs::symlink("nowhere", agents.join("link.toml")).expect("linked");
        let (reading, files) = Library::read(&agents).expect("the folder can be read");
        assert_eq!(reading.definitions.keys().map(|kind| &**kind).collect::<Vec<_>>(), ["good"]);
        let mut wrong: Vec<&str> = reading.problems.iter().map(|(file, _)| &**file).collect();
        wrong.dedup();
        assert_eq!(wrong, ["bad.toml", "folder.toml", "latin.toml", "link.toml"]);
        let told: Vec<String> = reading.problems.iter().map(|(_, problem)| problem.to_string()).collect();
        assert!(told.iter().any(|told| told.contains("UTF-8")), "{told:?}");
        assert!(told.iter().any(|told| told.contains("not there")), "{told:?}");
        assert_eq!(files.len(), 2);
    }

    #[test]
    fn a_file_that_is_broken_touches_its_own_type_alone() {
        let folder = folder("broken");
        let sound = |model: &str| format!("instructions = \"x\"\nmodel = \"{model}\"\n");
        let put = |library: &Library, texts: [&str; 2]| {
            let files = ["a.toml", "b.toml"].map(str::to_owned).into_iter().zip(texts.map(str::to_owned));
            let files: Vec<_> = files.collect();
            library.shelve(define::read_all(&files), &files).expect("kept")
        };
        let model = |library: &Library, kind: &str| library.of(kind).map(|one| one.model.to_string());
        let library = Library::new(folder.0.clone());
        put(&library, [&sound("m"), &(sound("m") + "name = \"w\"\n")]);
        let shelved = put(&library, [&sound("n"), "broken"]);
        assert_eq!(shelved.troubles.len(), 1);
        assert!(shelved.troubles[0].outcome().contains("type w stays"), "{:?}", shelved.troubles);
        assert_eq!(
            (model(&library, "a").as_deref(), model(&library, "w").as_deref()),
            (Some("n"), Some("m"))
        );
        assert!(shelved.gone.is_empty());
        // And at the next start, and the one after.
        for _ in 0..2 {
            let library = Library::new(folder.0.clone());
            assert_eq!(put(&library, [&sound("n"), "broken"]), shelved);
            assert_eq!(model(&library, "w").as_deref(), Some("m"));
            assert_eq!(library.troubles(), shelved.troubles);
        }
        let library = Library::new(folder.0.clone());
        let files = [("c.toml".to_owned(), "broken".to_owned()), ("a.toml".to_owned(), sound("n"))];
        let shelved = library.shelve(define::read_all(&files), &files).expect("kept");
        assert!(shelved.troubles[0].outcome().contains("type c is out of service"), "it never was sound");
        assert_eq!(shelved.gone, [Arc::from("w")], "its file is not there any more");
        assert_eq!(library.newest().len(), 1);
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test")]
    fn a_folder_that_vanished_is_told_from_one_that_was_emptied() {
        let home = folder("vanished");
        let agents = home.0.join("agents");
        let library = Library::new(home.0.join("archive"));
        assert!(!library.has_lost(&agents), "there never was one");
        shelve(&library, "instructions = \"x\"\nmodel = \"m\"\n");
        assert!(library.has_lost(&agents));
        std::fs::create_dir_all(&agents).expect("made");
        assert!(!library.has_lost(&agents));
    }

    #[test]
    fn an_agent_waits_for_the_tools_of_a_server_that_is_coming() {
        let folder = folder("coming");
        let library = Library::new(folder.0.clone());
        let one = shelve(&library, "instructions = \"x\"\nmodel = \"m\"\ntools = [\"github.*\"]\n");
        let coming = |servers: &[&str]| {
            library.stock(Vec::new(), servers.iter().map(|name| Arc::from(*name)).collect());
            library.coming(&library.kit(&one))
        };
        assert_eq!(coming(&["slow", "github"]).as_deref(), Some("github"));
        assert!(coming(&["slow"]).is_none() && coming(&[]).is_none());
    }
}
