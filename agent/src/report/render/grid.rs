//! Columns that fit.

use super::Style;
use crate::say::plain;
use std::fmt::Write;
use unicode_width::UnicodeWidthStr;

const GAP: &str = "  ";
/// A name is not cut shorter than this, unless its column says so; then columns go.
const MIN_NAME: usize = 10;

/// How a column behaves.
#[derive(Clone, Copy)]
pub(super) struct Column {
    title: &'static str,
    right: bool,
    /// To how many columns of a terminal it may be cut: names may, numbers may not.
    least: Option<usize>,
    /// What goes first where there is no room; 0 stays.
    rank: u8,
    /// Not shown where no row has anything in it.
    quiet: bool,
    /// Cut in its middle: what tells the names apart may stand at their ends.
    middle: bool,
    /// It has means, beside percentiles in others.
    mean: bool,
}

impl Column {
    /// A name, which is cut where there is no room.
    pub(super) const fn name(title: &'static str) -> Self {
        Self { title, right: false, least: Some(MIN_NAME), rank: 0, quiet: false, middle: false, mean: false }
    }

    /// A number, which is never cut.
    pub(super) const fn number(title: &'static str) -> Self {
        Self { title, right: true, least: None, rank: 0, quiet: false, middle: false, mean: false }
    }

    /// A name that says little when it is cut to fewer characters than this.
    pub(super) const fn at_least(mut self, least: usize) -> Self {
        self.least = Some(least);
        self
    }

    /// A name that is cut in its middle.
    pub(super) const fn middle(mut self) -> Self {
        self.middle = true;
        self
    }

    /// The column is not there at all where every row has `-` or nothing in it.
    pub(super) const fn quiet(mut self) -> Self {
        self.quiet = true;
        self
    }

    /// Its numbers are means, which a note says.
    pub(super) const fn mean(mut self) -> Self {
        self.mean = true;
        self
    }

    /// The column goes where there is no room, those of the highest rank first.
    pub(super) const fn rank(mut self, rank: u8) -> Self {
        self.rank = rank;
        self
    }
}

/// A cell: its text, and whether it speaks of something wrong.
#[derive(Clone)]
pub(super) struct Cell {
    text: String,
    wrong: bool,
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self { text: plain(&text).into_owned(), wrong: false }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl Cell {
    pub(super) fn wrong(mut self, wrong: bool) -> Self {
        self.wrong = wrong;
        self
    }

    fn width(&self) -> usize {
        self.text.width()
    }
}

/// A table under way.
pub(super) struct Grid {
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
    total: Option<Vec<Cell>>,
}

impl Grid {
    pub(super) fn new(columns: Vec<Column>) -> Self {
        Self { columns, rows: Vec::new(), total: None }
    }

    pub(super) fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    pub(super) fn total(&mut self, cells: Vec<Cell>) {
        self.total = Some(cells);
    }

    /// The table; what had to go is named below it.
    pub(super) fn write(&self, style: &Style, out: &mut String) {
        let mut widths: Vec<usize> = (0..self.columns.len()).map(|place| self.natural(place)).collect();
        let mut shown: Vec<bool> = self
            .columns
            .iter()
            .enumerate()
            .map(|(place, column)| !column.quiet || self.says(place))
            .collect();
        let mut hidden: Vec<usize> = Vec::new();
        while let Some(excess) = excess(&widths, &shown, style.width) {
            if self.cut_names(&mut widths, &shown, excess) {
                break;
            }
            let worst = (0..shown.len())
                .filter(|&place| shown[place] && self.columns[place].rank > 0)
                .max_by_key(|&place| self.columns[place].rank);
            let Some(worst) = worst else { break };
            shown[worst] = false;
            hidden.push(worst);
            // Names grow back into the room that this gives.
            for (place, width) in widths.iter_mut().enumerate() {
                *width = self.natural(place);
            }
        }
        // A narrow column may have room where a wide one went: the one that went last first.
        for &place in hidden.iter().rev() {
            shown[place] = true;
            shown[place] = excess(&widths, &shown, style.width).is_none();
        }
        hidden.retain(|&place| !shown[place]);
        let line = |cells: &[Cell], out: &mut String, code: &str| {
            self.line(cells, &widths, &shown, style, out, code);
        };
        let titles: Vec<Cell> = self.columns.iter().map(|column| column.title.into()).collect();
        line(&titles, out, "1");
        self.rows.iter().for_each(|row| line(row, out, ""));
        if let Some(total) = &self.total {
            line(total, out, "1");
        }
        let shown = self.columns.iter().zip(&shown).filter(|(_, shown)| **shown).map(|(column, _)| column);
        let means: Vec<&str> = shown.filter(|column| column.mean).map(|column| column.title).collect();
        if !means.is_empty() {
            let text = format!("(means: {}; percentiles: p50, the median, and p99)", means.join(", "));
            wrap(&text, style.width, 0, out);
        }
        if !hidden.is_empty() {
            let hidden: Vec<&str> = hidden.iter().map(|&place| self.columns[place].title).collect();
            let text = format!("(no room for: {}; a wider terminal or --json shows all)", hidden.join(", "));
            wrap(&text, style.width, 0, out);
        }
    }

    fn says(&self, place: usize) -> bool {
        self.rows.iter().filter_map(|row| row.get(place)).any(|cell| !matches!(cell.text.as_str(), "" | "-"))
    }

    fn natural(&self, place: usize) -> usize {
        let cells = self.rows.iter().chain(&self.total).filter_map(|row| row.get(place));
        cells.map(Cell::width).chain([self.columns[place].title.width()]).max().unwrap_or(0)
    }

    /// Takes `excess` from the widest names; whether that was enough.
    fn cut_names(&self, widths: &mut [usize], shown: &[bool], mut excess: usize) -> bool {
        while excess > 0 {
            let widest = (0..widths.len())
                .filter(|&place| {
                    shown[place] && self.columns[place].least.is_some_and(|least| widths[place] > least)
                })
                .max_by_key(|&place| widths[place]);
            let Some(widest) = widest else { return false };
            widths[widest] -= 1;
            excess -= 1;
        }
        true
    }

    fn line(
        &self,
        cells: &[Cell],
        widths: &[usize],
        shown: &[bool],
        style: &Style,
        out: &mut String,
        code: &str,
    ) {
        let mut text = String::new();
        for (place, cell) in cells.iter().enumerate().filter(|(place, _)| shown[*place]) {
            if !text.is_empty() {
                text.push_str(GAP);
            }
            let width = widths[place];
            let shortened = match self.columns[place].middle {
                true => cut_middle(&cell.text, width),
                false => cut(&cell.text, width),
            };
            let room = " ".repeat(width.saturating_sub(shortened.width()));
            let padded = match self.columns[place].right {
                true => room + &shortened,
                false => shortened + &room,
            };
            match style.color {
                true if cell.wrong => {
                    let _ = write!(text, "\x1b[31m{padded}\x1b[0m");
                }
                true if !code.is_empty() => {
                    let _ = write!(text, "\x1b[{code}m{padded}\x1b[0m");
                }
                _ => text.push_str(&padded),
            }
        }
        let _ = writeln!(out, "{}", text.trim_end());
    }
}

/// How many columns too many there are; `None` where it fits.
fn excess(widths: &[usize], shown: &[bool], room: usize) -> Option<usize> {
    let visible: Vec<usize> =
        widths.iter().zip(shown).filter(|(_, shown)| **shown).map(|(width, _)| *width).collect();
    let needed = visible.iter().sum::<usize>() + GAP.len() * visible.len().saturating_sub(1);
    needed.checked_sub(room).filter(|excess| *excess > 0)
}

fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut kept = String::new();
    for next in text.chars() {
        // Together: some characters take more room behind each other than alone, or less.
        kept.push(next);
        if kept.width() >= width {
            kept.pop();
            break;
        }
    }
    kept.push('…');
    kept
}

/// The beginning and the end of a text that has no room.
fn cut_middle(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let tail: usize = (width / 2).saturating_sub(1);
    let mut end = text.len();
    for (at, _) in text.char_indices().rev() {
        if text[at..].width() > tail {
            break;
        }
        end = at;
    }
    let tail = &text[end..];
    cut(text, width.saturating_sub(tail.width())) + tail
}

/// Text broken into lines at spaces, each after the first indented like the text behind its bullet.
pub(super) fn wrap(text: &str, width: usize, indent: usize, out: &mut String) {
    let mut column = 0;
    for word in text.split(' ') {
        let word = plain(word);
        let length = word.width();
        if column > 0 && column + 1 + length > width {
            let _ = write!(out, "\n{:indent$}", "");
            column = indent;
        } else if column > 0 {
            out.push(' ');
            column += 1;
        }
        out.push_str(&word);
        column += length;
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid() -> Grid {
        let mut grid = Grid::new(vec![
            Column::name("vendor"),
            Column::number("calls"),
            Column::number("received").rank(1),
        ]);
        grid.row(vec!["a-vendor-with-a-very-long-name".into(), "1,234".into(), "9.9MB".into()]);
        grid.total(vec!["total".into(), "1,234".into(), "9.9MB".into()]);
        grid
    }

    fn at(width: usize) -> Vec<String> {
        let mut out = String::new();
        grid().write(&Style { width, color: false }, &mut out);
        out.lines().map(str::to_owned).collect()
    }

    #[test]
    fn names_are_cut_before_columns_go() {
        assert_eq!(at(80)[1], "a-vendor-with-a-very-long-name  1,234     9.9MB");
        assert_eq!(at(34)[1], "a-vendor-with-a-…  1,234     9.9MB");
        let narrow = at(20);
        assert_eq!(narrow[1], "a-vendor-wit…  1,234");
        assert!(narrow[3..].join(" ").contains("no room for: received"));
        assert!(at(34).iter().all(|line| line.chars().count() <= 34));
    }

    #[test]
    fn a_name_from_the_network_cannot_rewrite_the_terminal() {
        let mut out = String::new();
        let mut grid = Grid::new(vec![Column::name("customer")]);
        grid.row(vec!["evil\x1b[2J\r\n".into()]);
        grid.write(&Style::default(), &mut out);
        wrap("evil\x1b[2J\nname", 80, 0, &mut out);
        assert!(!out.contains('\x1b') && !out.contains('\r'), "{out:?}");
    }

    #[test]
    fn columns_stay_in_line_whatever_the_names_are_written_in() {
        let mut grid = Grid::new(vec![Column::name("customer"), Column::number("calls")]);
        let names = ["東京電力株式会社の顧客", "acme", "e\u{301}a\u{301}", "👩‍👩‍👧‍👦 family", "\u{202E}gnorw"];
        names.into_iter().for_each(|name| grid.row(vec![name.into(), "7".into()]));
        for width in [17, 20, 40] {
            let mut out = String::new();
            grid.write(&Style { width, color: false }, &mut out);
            let ends: Vec<usize> = out.lines().map(|line| line.width()).collect();
            assert!(ends.iter().all(|end| *end == ends[0] && *end <= width), "{width}:\n{out}");
            assert!(!out.contains('\u{202E}'));
        }
    }

    #[test]
    fn means_that_are_shown_are_told_from_percentiles() {
        let mut grid = Grid::new(vec![
            Column::number("p99"),
            Column::number("ttfb").mean(),
            Column::number("tls").mean().rank(1),
        ]);
        grid.row(vec!["120 ms".into(), "80 ms".into(), "7 ms".into()]);
        let note = |width| {
            let mut out = String::new();
            grid.write(&Style { width, color: false }, &mut out);
            out.lines().skip(2).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(note(80), "(means: ttfb, tls; percentiles: p50, the median, and p99)");
        assert!(note(14).starts_with("(means: ttfb; percentiles:"), "{}", note(14));
    }

    #[test]
    fn a_quiet_column_shows_only_where_it_says_something() {
        let title = |cell: &str| {
            let mut grid = Grid::new(vec![Column::name("vendor"), Column::number("cost").quiet()]);
            grid.row(vec!["a".into(), "-".into()]);
            grid.row(vec!["b".into(), cell.into()]);
            let mut out = String::new();
            grid.write(&Style::default(), &mut out);
            out.lines().next().unwrap_or_default().to_owned()
        };
        assert_eq!(title("-"), "vendor");
        assert_eq!(title("1.00 USD"), "vendor      cost");
    }

    #[test]
    fn errors_are_red_where_colours_are_wanted() {
        let mut grid = Grid::new(vec![Column::number("errors")]);
        grid.row(vec![Cell::from("3").wrong(true)]);
        let mut out = String::new();
        grid.write(&Style { width: 80, color: true }, &mut out);
        assert!(out.contains("\x1b[31m     3\x1b[0m"), "{out:?}");
    }

    #[test]
    fn long_sentences_are_wrapped() {
        let mut out = String::new();
        wrap("- one two three four", 11, 2, &mut out);
        assert_eq!(out, "- one two\n  three\n  four\n");
    }

    #[test]
    fn a_narrow_column_takes_the_room_that_a_wide_one_leaves() {
        let mut grid = Grid::new(vec![
            Column::name("vendor"),
            Column::number("received").rank(1),
            Column::number("sent").rank(2),
        ]);
        grid.row(vec!["github".into(), "123,456,789 of them".into(), "9B".into()]);
        let mut out = String::new();
        grid.write(&Style { width: 14, color: false }, &mut out);
        assert!(out.starts_with("vendor  sent\ngithub    9B\n"), "{out}");
        assert!(out.replace('\n', " ").contains("(no room for: received; "), "{out}");
    }

    #[test]
    fn names_that_differ_at_their_ends_are_told_apart() {
        let cut = |text| cut_middle(text, 24);
        assert_eq!(cut("GET /repos/{owner}/{repo}/issues"), "GET /repos/{…epo}/issues");
        assert_eq!(cut("GET /short"), "GET /short");
        for width in 1..40 {
            let text = "GET /日本語/{id}/日本語のエンドポイント/とても長い";
            assert!(cut_middle(text, width).width() <= width.max(1), "{width}: {}", cut_middle(text, width));
        }
    }
}
