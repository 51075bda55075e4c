//! HTML in small pieces.

use std::fmt::Write as _;

/// Text that means itself in HTML. Characters that a browser would act on or that reverse the order of others are shown
/// by their numbers, because a file's name may hold any.
pub fn escape(text: &str) -> String {
    crate::format::escape::for_terminal(text)
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// The same, with the text between backquotes as code.
pub fn code(text: &str) -> String {
    let pieces = text.split('`').map(escape).enumerate();
    pieces.map(|(i, piece)| if i % 2 == 1 { format!("<code>{piece}</code>") } else { piece }).collect()
}

/// The sentence with its first letter large.
pub fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// A picture with a title above and words below.
pub fn figure(page: &mut String, title: &str, picture: &str, caption: &str) {
    let _ = writeln!(
        page,
        "<figure><h3>{}</h3>{picture}<figcaption>{}</figcaption></figure>",
        escape(title),
        escape(caption)
    );
}

/// A table. The first column is text, the others are figures.
pub fn table(page: &mut String, head: &[&str], rows: &[Vec<String>]) {
    page.push_str("<div class=\"scroll\"><table><tr>");
    head.iter().for_each(|name| {
        let _ = write!(page, "<th scope=\"col\">{}</th>", escape(name));
    });
    page.push_str("</tr>");
    for row in rows {
        page.push_str("<tr>");
        row.iter().for_each(|cell| {
            let _ = write!(page, "<td>{}</td>", escape(cell));
        });
        page.push_str("</tr>");
    }
    page.push_str("</table></div>\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backquotes_make_code() {
        assert_eq!(code("run `a < b` now"), "run <code>a &lt; b</code> now");
    }
}
