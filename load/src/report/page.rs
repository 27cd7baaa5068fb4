//! The page around the charts: one file, no network, light and dark.
//!
//! Promises: opens offline; text from outside is escaped. Must not: load anything.

/// Text for HTML.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// A whole page.
pub(crate) fn page(title: &str, body: &str) -> String {
    format!(
        "<!doctype html><html lang=en><meta charset=utf-8>\
         <meta name=viewport content='width=device-width,initial-scale=1'>\
         <title>{}</title><style>{STYLE}</style><main>{body}</main></html>\n",
        escape(title)
    )
}

/// A table; the first cell of each row is its name.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut text = String::from("<div class=wide><table>");
    if !head.is_empty() {
        let cells: String = head.iter().map(|cell| format!("<th>{}</th>", escape(cell))).collect();
        text.push_str(&format!("<thead><tr>{cells}</tr></thead>"));
    }
    for row in rows {
        let cells: String = row.iter().map(|cell| format!("<td>{}</td>", escape(cell))).collect();
        text.push_str(&format!("<tr>{cells}</tr>"));
    }
    text.push_str("</table></div>");
    text
}

const STYLE: &str = "\
:root{--ink:#1d2430;--soft:#5d6878;--paper:#f6f7f9;--card:#fff;--edge:#e2e6ec;--shade:#eef1f5;\
--c0:#2563c9;--c1:#d9730d;--c2:#128a72;--c3:#8250c4;--good:#12805c;--bad:#c0322b}\
@media(prefers-color-scheme:dark){:root{--ink:#e4e8ee;--soft:#96a1b1;--paper:#13171d;--card:#1b2129;\
--edge:#2c343f;--shade:#222a34;--c0:#6ea3f5;--c1:#f2a14e;--c2:#4cc9ab;--c3:#b993f0;--good:#4cc995;\
--bad:#f07a72}}\
*{box-sizing:border-box}body{margin:0;background:var(--paper);color:var(--ink);\
font:15px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif}\
main{max-width:1180px;margin:0 auto;padding:28px 20px 60px}h1{font-size:26px;margin:0 0 2px}\
h2{font-size:17px;margin:34px 0 10px}p{margin:4px 0 0;max-width:75ch}.soft,.unit{color:var(--soft)}\
.unit{font-size:13px}.badge{display:inline-block;border-radius:20px;padding:2px 12px;font-size:13px;\
font-weight:600;margin:10px 8px 0 0;border:1px solid currentColor}.good{color:var(--good)}\
.bad{color:var(--bad)}.warn{color:var(--c1)}.tiles{display:grid;gap:12px;margin:18px 0 14px;\
grid-template-columns:repeat(auto-fit,minmax(128px,1fr))}.tile{background:var(--card);\
border:1px solid var(--edge);border-radius:10px;padding:12px 14px}.tile span{display:block;\
color:var(--soft);font-size:13px}.tile b{font-size:21px;font-weight:650;\
font-variant-numeric:tabular-nums}.tile small{color:var(--soft);font-size:13px;margin-left:3px}\
.charts{display:grid;gap:14px;grid-template-columns:repeat(auto-fit,minmax(min(100%,480px),1fr))}\
figure{margin:0;background:var(--card);border:1px solid var(--edge);border-radius:10px;\
padding:12px 12px 4px}figcaption{display:flex;flex-wrap:wrap;gap:2px 8px;align-items:baseline;\
margin:0 4px 6px}.legend{margin-left:auto;font-size:13px;color:var(--soft)}.legend span{margin-left:12px;\
white-space:nowrap}.legend i{display:inline-block;width:16px;border-top:3px solid;margin-right:5px;\
vertical-align:middle}.legend i.dashed{border-top-style:dashed}svg{display:block;width:100%;height:auto}\
svg [stroke='#E2E6EC']{stroke:var(--edge)}svg [fill='#5D6878']{fill:var(--soft)}\
svg [fill='#EEF1F5']{fill:var(--shade)}svg [stroke='#2563C9']{stroke:var(--c0)}\
svg [stroke='#D9730D']{stroke:var(--c1)}svg [stroke='#128A72']{stroke:var(--c2)}\
svg [stroke='#8250C4']{stroke:var(--c3)}svg [fill='#2563C9']{fill:var(--c0)}\
svg [fill='#D9730D']{fill:var(--c1)}.k0{color:var(--c0)}.k1{color:var(--c1)}\
.k2{color:var(--c2)}.k3{color:var(--c3)}.none{color:var(--soft);padding:30px 8px}\
.wide{overflow-x:auto;background:var(--card);border:1px solid var(--edge);border-radius:10px}\
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}\
td,th{padding:6px 14px;text-align:right;border-top:1px solid var(--edge);white-space:nowrap}\
th{color:var(--soft);font-weight:500;border-top:0}td:first-child,th:first-child{text-align:left}\
tr:first-child td{border-top:0}thead+tr td,thead~tr td{border-top:1px solid var(--edge)}\
.left td{text-align:left;white-space:normal;overflow-wrap:anywhere}.pair{display:grid;gap:14px;\
grid-template-columns:repeat(auto-fit,minmax(min(100%,480px),1fr))}";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_outside_is_escaped() {
        assert_eq!(escape("<a href='x'>&\""), "&lt;a href=&#39;x&#39;&gt;&amp;&quot;");
        assert!(page("<x>", "").contains("<title>&lt;x&gt;</title>"));
        assert!(table(&["<h>"], &[vec!["<d>".to_owned()]]).contains("&lt;d&gt;"));
    }

    #[test]
    fn the_page_loads_nothing() {
        let text = page("t", "b");
        for word in ["http", "src=", "url(", "@import"] {
            assert!(!text.contains(word), "{word}");
        }
    }
}
