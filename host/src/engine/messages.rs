//! Lines that came as many messages and are one batch all the same: which lines are whose, when each message arrived and who
//! sent it. Does not know where messages come from.

use crate::time::Millis;

/// Bytes of a text that a message brings besides its lines; the rest is cut.
const TEXT_BYTES_MAX: usize = 4096;

/// In the order of their lines in the batch.
#[derive(Clone, Debug, Default)]
pub struct Messages {
    list: Vec<Message>,
    texts: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its lines end here in the batch's buffer; they begin where those of the message before end.
    pub end: u32,
    /// Where it stands in its source.
    pub position: u64,
    pub arrival: Millis,
    address: Text,
    user_agent: Text,
}

/// A range of `Messages::texts`; empty: none was given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Text {
    start: u32,
    len: u32,
}

impl Messages {
    pub fn push(
        &mut self,
        end: usize,
        position: u64,
        arrival: Millis,
        address: Option<&str>,
        user_agent: Option<&str>,
    ) {
        let (address, user_agent) = (self.text(address), self.text(user_agent));
        self.list.push(Message { end: end as u32, position, arrival, address, user_agent });
    }

    /// Many messages of one client in a row keep its texts once.
    fn text(&mut self, text: Option<&str>) -> Text {
        let Some(text) = text.filter(|text| !text.is_empty()) else { return Text::default() };
        let text = &text[..text.floor_char_boundary(TEXT_BYTES_MAX)];
        if let Some(last) = self.list.last() {
            let same = [last.address, last.user_agent].into_iter().find(|known| self.read(*known) == Some(text));
            if let Some(same) = same {
                return same;
            }
        }
        let start = self.texts.len() as u32;
        self.texts.push_str(text);
        Text { start, len: text.len() as u32 }
    }

    fn read(&self, text: Text) -> Option<&str> {
        (text.len > 0).then(|| &self.texts[text.start as usize..(text.start + text.len) as usize])
    }

    pub fn len(&self) -> usize {
        self.list.len()
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub fn get(&self, message: u32) -> &Message {
        &self.list[message as usize]
    }

    /// Where its lines begin in the batch's buffer.
    pub fn start(&self, message: u32) -> u32 {
        message.checked_sub(1).map_or(0, |before| self.get(before).end)
    }

    pub fn address(&self, message: u32) -> Option<&str> {
        self.read(self.get(message).address)
    }

    pub fn user_agent(&self, message: u32) -> Option<&str> {
        self.read(self.get(message).user_agent)
    }

    /// The message whose lines hold this byte of the batch.
    pub fn at(&self, byte: u32) -> u32 {
        self.list.partition_point(|message| message.end <= byte) as u32
    }

    /// The message of each line, by where the lines begin (ascending).
    pub fn of_lines(&self, starts: &[u32], messages: &mut Vec<u32>) {
        messages.clear();
        let Some(first) = starts.first() else { return };
        let mut message = self.at(*first);
        messages.extend(starts.iter().map(|start| {
            while self.get(message).end <= *start {
                message += 1;
            }
            message
        }));
    }

    /// Arrival of the oldest and of the newest message.
    pub fn arrivals(&self) -> Option<(Millis, Millis)> {
        let arrivals = || self.list.iter().map(|message| message.arrival);
        Some((arrivals().min()?, arrivals().max()?))
    }

    /// Rough heap bytes.
    pub fn bytes(&self) -> usize {
        self.list.len() * size_of::<Message>() + self.texts.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_find_their_message_and_its_client() {
        let mut messages = Messages::default();
        messages.push(10, 5, 100, Some("1.2.3.4"), None);
        messages.push(20, 6, 90, Some("1.2.3.4"), Some("agent"));
        messages.push(20, 7, 95, None, Some("no lines"));
        messages.push(50, 9, 120, None, Some(""));
        let mut of = Vec::new();
        messages.of_lines(&[0, 4, 10, 20, 33], &mut of);
        assert_eq!(of, [0, 0, 1, 3, 3]);
        messages.of_lines(&[25], &mut of);
        assert_eq!(of, [3]);
        messages.of_lines(&[], &mut of);
        assert!(of.is_empty());
        let clients: Vec<_> = (0..4).map(|at| (messages.address(at), messages.user_agent(at))).collect();
        assert_eq!(
            clients,
            [(Some("1.2.3.4"), None), (Some("1.2.3.4"), Some("agent")), (None, Some("no lines")), (None, None)]
        );
        assert_eq!(messages.arrivals(), Some((90, 120)));
        assert_eq!(messages.at(19), 1);
        assert_eq!([0, 1, 3].map(|message| messages.start(message)), [0, 10, 20]);
        assert_eq!(messages.get(3).position, 9);
    }
}
