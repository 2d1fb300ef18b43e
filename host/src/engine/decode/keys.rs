//! The keys that events have, the fields wanted at them, and which key follows which.
//!
//! Events repeat their keys in a few orders. A key that was seen has an id that knows its bytes and what follows it, so
//! that the next key is almost always one compare. What is learned is bounded; when it is full it is forgotten and
//! learned again. Knows nothing of lines and values.

use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::value::unescape;

/// Learned keys (a power of two), and bytes of their names.
const KEYS_MAX: usize = 4096;
const NAME_BYTES_MAX: usize = 256;
const FOLLOWERS: usize = 6;
/// Bytes up to the colon that one compare covers.
const WINDOW_BYTES: usize = 16;

/// No column is wanted.
pub(super) const NO_COLUMN: u16 = u16::MAX;
/// The event itself.
pub(super) const ROOT: u16 = 0;
/// Below what no path reads.
const DEAD: u16 = u16::MAX;
/// No key stands there.
const NOWHERE: u16 = u16::MAX - 1;
const NOT_WANTED: Meaning = Meaning { node: DEAD, column: NO_COLUMN, inner: 0 };

/// Fits no key; fills lists of followers.
const NEVER: u16 = 0;
/// Stands for the last key that was too long to be learned.
const OTHER: u16 = 1;
/// "Before" the first key of every event.
pub(super) const START: u16 = 2;
const FIXED: usize = 3;

/// What a key means at its place.
#[derive(Clone, Copy)]
pub(super) struct Meaning {
    /// Where paths through this key go on.
    pub node: u16,
    pub column: u16,
    /// If paths lead through this key, a number from 1 on, else 0.
    pub inner: u32,
}

/// A key behind a certain other one: in another order it is another one, so that mostly one key follows. A cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Key {
    /// The key from what leads it to its colon: the comma or brace with at most a blank, the name as spelled in its
    /// quotes, the colon. Of that the last bytes, at the end of the window, and which bytes of the window count.
    tail: u128,
    mask: u128,
    followers: [u16; FOLLOWERS],
    /// From there to the colon; `SPECIAL` if the window says too little.
    bytes: u16,
    parent: u16,
    pub meaning: Meaning,
}

const _: () = assert!(size_of::<Key>() == 64);

/// The key is longer than the window, other blanks stand before it, or paths lead through it.
const SPECIAL: u16 = u16::MAX;

impl Key {
    #[inline(always)]
    fn is(&self, window: u128, parent: u16) -> bool {
        window & self.mask == self.tail && self.parent == parent
    }

    /// From what leads the key to the colon, or `None`: see what is special.
    #[inline(always)]
    pub fn plain_bytes(&self) -> Option<usize> {
        (self.bytes != SPECIAL).then_some(usize::from(self.bytes))
    }
}

/// What only looking up needs of a key.
#[derive(Clone, Copy)]
struct Spelling {
    name_start: u32,
    name_bytes: u32,
    /// Hashes of this key, and of the one it stands behind with what leads it.
    own: u32,
    before: u32,
}

impl Spelling {
    fn name<'a>(&self, names: &'a [u8]) -> &'a [u8] {
        &names[self.name_start as usize..][..self.name_bytes as usize]
    }
}

struct Node {
    children: Vec<(Vec<u8>, u16)>,
    meaning: Meaning,
    /// Columns of all that lies below.
    below: Vec<u16>,
}

pub(super) struct Keys {
    nodes: Vec<Node>,
    /// How many keys have paths that lead through them, the event itself included.
    pub inner_keys: u32,
    column_of_path: Vec<u16>,
    /// Of these as many are known as there are spellings; the others fit nothing.
    keys: Box<[Key; KEYS_MAX]>,
    spellings: Vec<Spelling>,
    names: Vec<u8>,
    ids: HashTable<u16>,
}

impl Keys {
    pub fn new(paths: &[Vec<String>]) -> Self {
        let root = Meaning { node: ROOT, ..NOT_WANTED };
        let mut keys = Self {
            nodes: vec![Node { children: Vec::new(), meaning: root, below: Vec::new() }],
            inner_keys: 0,
            column_of_path: Vec::new(),
            keys: vec![UNKNOWN; KEYS_MAX].try_into().unwrap_or_else(|_| unreachable!("as long as the array")),
            spellings: Vec::new(),
            names: Vec::new(),
            ids: HashTable::new(),
        };
        let mut columns = 0;
        for path in paths {
            let node = keys.add(path);
            let column = &mut keys.nodes[node].meaning.column;
            if *column == NO_COLUMN {
                *column = columns;
                columns += 1;
            }
            let column = *column;
            keys.column_of_path.push(column);
            keys.add_below(path, column);
        }
        keys.forget();
        keys
    }

    pub fn columns_of_paths(&self) -> &[u16] {
        &self.column_of_path
    }

    #[cfg(test)]
    pub fn learned(&self) -> usize {
        self.spellings.len()
    }

    pub fn root_column(&self) -> u16 {
        self.nodes[0].meaning.column
    }

    /// Columns of all paths that lead through a key of this meaning.
    pub fn below(&self, node: u16) -> &[u16] {
        self.nodes.get(usize::from(node)).map_or(&[], |node| &node.below)
    }

    fn add(&mut self, path: &[String]) -> usize {
        let mut at = 0;
        for segment in path {
            at = match self.nodes[at].children.iter().find(|(name, _)| name == segment.as_bytes()) {
                Some((_, child)) => usize::from(*child),
                None => {
                    let child = self.nodes.len();
                    assert!(child < usize::from(NOWHERE), "more segments of paths than a decoder reads");
                    let meaning = Meaning { node: child as u16, ..NOT_WANTED };
                    self.nodes.push(Node { children: Vec::new(), meaning, below: Vec::new() });
                    self.nodes[at].children.push((segment.clone().into_bytes(), child as u16));
                    if self.nodes[at].meaning.inner == 0 {
                        self.inner_keys += 1;
                        self.nodes[at].meaning.inner = self.inner_keys;
                    }
                    child
                }
            };
        }
        at
    }

    fn add_below(&mut self, path: &[String], column: u16) {
        let mut at = 0;
        for segment in path {
            if !self.nodes[at].below.contains(&column) {
                self.nodes[at].below.push(column);
            }
            let children = &self.nodes[at].children;
            let child = children.iter().find(|(name, _)| name == segment.as_bytes()).expect("the path was added");
            at = usize::from(child.1);
        }
    }

    pub fn forget(&mut self) {
        self.keys.fill(UNKNOWN);
        self.spellings.clear();
        self.spellings.resize(FIXED, Spelling { name_start: 0, name_bytes: 0, own: 0, before: 0 });
        self.names.clear();
        self.ids.clear();
    }

    #[inline(always)]
    pub fn get(&self, id: usize) -> &Key {
        &self.keys[id % KEYS_MAX]
    }

    /// The key before `colon` (if a colon stands there) and its id, if it is the one that mostly follows `last`: the one
    /// learned after it, so that the processor need not wait for a load to go on, or the first of its followers.
    #[inline(always)]
    pub fn follow(&self, buffer: &[u8], colon: usize, last: usize, parent: u16) -> Option<(usize, &Key)> {
        let window = window_to(buffer, colon)?;
        let next = (last + 1) % KEYS_MAX;
        let key = &self.keys[next];
        if key.is(window, parent) {
            return Some((next, key));
        }
        let id = usize::from(self.get(last).followers[0]);
        let key = self.get(id);
        key.is(window, parent).then_some((id, key))
    }

    /// The other followers. A frequent one rises to where it is found at once.
    #[inline(always)]
    pub fn follow_seldom(&mut self, buffer: &[u8], colon: usize, last: usize, parent: u16) -> Option<usize> {
        let window = window_to(buffer, colon)?;
        let followers = self.keys[last].followers;
        let rank = (1..FOLLOWERS).find(|rank| self.get(usize::from(followers[*rank])).is(window, parent))?;
        self.keys[last].followers.swap(rank, rank - 1);
        Some(usize::from(followers[rank]))
    }

    /// Where the quote of a special key opens, if the whole of it stands before the colon, not only what the window says.
    #[inline(always)]
    pub fn special(&self, id: usize, buffer: &[u8], colon: usize) -> Option<usize> {
        let spelled = self.spelled(id);
        if spelled.len() + 3 > WINDOW_BYTES {
            let before = buffer[..colon].strip_suffix(b"\"")?.strip_suffix(spelled)?;
            before.ends_with(b"\"").then(|| before.len() - 1)
        } else {
            Some(colon - spelled.len() - 2)
        }
    }

    /// The key that is spelled like this between its quotes, behind the one or two bytes `lead`; from now on it is known
    /// to follow `last`. Ids from before may mean other keys afterwards. `None`: an escape is none.
    pub fn look_up(&mut self, lead: &[u8], spelled: &[u8], last: usize, parent: u16) -> Option<usize> {
        let before = self.spellings[last].own ^ (u32::from(lead[0]) << 8) ^ lead.len() as u32;
        let hash = hash_of(spelled, parent, before);
        let known = self.ids.find(hash, |id| {
            let id = usize::from(*id);
            self.keys[id].parent == parent && self.spellings[id].before == before && self.spelled(id) == spelled
        });
        let id = match known {
            Some(id) => *id,
            None => self.learn(lead, spelled, hash, parent, before)?,
        };
        if usize::from(id) != last + 1 && last < self.spellings.len() {
            // The first three stay, the others make room in turn.
            let followers = &mut self.keys[last].followers;
            let place = followers.iter().position(|follower| *follower == NEVER || *follower == id);
            followers[place.unwrap_or(3 + usize::from(id) % (FOLLOWERS - 3))] = id;
        }
        Some(usize::from(id))
    }

    fn spelled(&self, id: usize) -> &[u8] {
        self.spellings[id].name(&self.names)
    }

    fn learn(&mut self, lead: &[u8], spelled: &[u8], hash: u64, parent: u16, before: u32) -> Option<u16> {
        let meaning = if spelled.contains(&b'\\') {
            let mut name = Vec::new();
            unescape(spelled, &mut name)?;
            self.meaning(&name, parent)
        } else {
            self.meaning(spelled, parent)
        };
        if spelled.len() > NAME_BYTES_MAX {
            self.keys[usize::from(OTHER)].meaning = meaning;
            return Some(OTHER);
        }
        if self.spellings.len() == KEYS_MAX {
            self.forget();
        }
        let id = self.spellings.len() as u16;
        let whole = [lead, b"\"", spelled, b"\":"].concat();
        let (tail, mask) = window_of(&whole);
        let special = whole.len() > WINDOW_BYTES || meaning.inner != 0 || !matches!(lead[0], b',' | b'{');
        let bytes = if special { SPECIAL } else { whole.len() as u16 - 1 };
        self.keys[usize::from(id)] = Key { tail, mask, followers: [NEVER; FOLLOWERS], bytes, parent, meaning };
        let own = hash_of(spelled, parent, 0) as u32;
        let (name_start, name_bytes) = (self.names.len() as u32, spelled.len() as u32);
        self.spellings.push(Spelling { name_start, name_bytes, own, before });
        self.names.extend_from_slice(spelled);
        let (keys, spellings, names) = (&self.keys, &self.spellings, &self.names);
        self.ids.insert_unique(hash, id, |&id| {
            let (key, spelling) = (&keys[usize::from(id)], &spellings[usize::from(id)]);
            hash_of(spelling.name(names), key.parent, spelling.before)
        });
        Some(id)
    }

    fn meaning(&self, name: &[u8], parent: u16) -> Meaning {
        let children = self.nodes.get(usize::from(parent)).map_or(&[][..], |node| &node.children);
        match children.iter().find(|(child, _)| child == name) {
            Some((_, child)) => self.nodes[usize::from(*child)].meaning,
            None => NOT_WANTED,
        }
    }
}

/// Fits nothing.
const UNKNOWN: Key =
    Key { tail: 1, mask: 0, followers: [NEVER; FOLLOWERS], bytes: SPECIAL, parent: NOWHERE, meaning: NOT_WANTED };

#[inline(always)]
fn window_to(buffer: &[u8], colon: usize) -> Option<u128> {
    Some(u128::from_le_bytes(*buffer.get(..=colon)?.last_chunk::<WINDOW_BYTES>()?))
}

/// The last bytes of `whole` at the end of a window, and which bytes of the window they are.
fn window_of(whole: &[u8]) -> (u128, u128) {
    let covered = whole.len().min(WINDOW_BYTES);
    let (mut tail, mut mask) = ([0; WINDOW_BYTES], [0; WINDOW_BYTES]);
    tail[WINDOW_BYTES - covered..].copy_from_slice(&whole[whole.len() - covered..]);
    mask[WINDOW_BYTES - covered..].fill(0xff);
    (u128::from_le_bytes(tail), u128::from_le_bytes(mask))
}

fn hash_of(spelled: &[u8], parent: u16, before: u32) -> u64 {
    xxh3_64_with_seed(spelled, u64::from(parent) << 32 | u64::from(before))
}
