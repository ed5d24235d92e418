"""The default patterns of the cleaning rules, in the syntax of Rust's crate `regex`, which polars uses."""

URL = r"(?i)(?:https?|ftp)://[^\s)\]>\"']+|\bwww\.[a-z0-9-]+(?:\.[a-z0-9-]+)+"

#: In this order: a row with a pipe and GitHub-flavoured Markdown's row of dashes (with a pipe at either end, or between its
#: cells); the tag of an HTML table or row and right after it the tag of a part (a lone tag in a question about HTML is no
#: table); LaTeX's tabular; a frame of plus and minus signs.
TABLE = (
    r"(?m)^.*\|.*\r?\n[ \t>]*(?:\|[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?"
    r"|:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)+\|?|:?-+:?[ \t]*\|)[ \t]*\r?$"
    r"|<(?i:table|thead|tbody|tr)\b[^>]*>\s*<(?i:caption|colgroup|thead|tbody|t[rdh])\b[^>]*>"
    r"|\\begin\{(?:tabular|longtable)\}"
    r"|^[ \t>]*\+(?:[-=]{2,}\+)+[ \t]*\r?$"
)

#: An image in Markdown, HTML or LaTeX or as data, a place-holder where one was, or words that point at one. The image of a
#: function, a graph with vertices and a commutative diagram are mathematics.
IMAGE = (
    r"!\[[^\]]*\]\(|<(?i:img)\b|\\includegraphics\b|data:image/"
    r"|(?i:[\[<(](?:image|figure|picture|img)[\])>]"
    r"|\b(?:shown|depicted|illustrated|displayed|pictured) (?:in|by|on) (?:the|this) "
    r"(?:\w+ )?(?:figure|diagram|image|picture|graph|photo|chart)\b"
    r"|\b(?:refer to|look at|see) the (?:\w+ )?(?:figure|diagram|image|picture|photo|chart)\b"
    r"|\b(?:the|this) (?:figure|diagram|image|picture|photo) (?:below|above)\b)|如(?:下)?图"
)

#: An ending that no whole question has.
ENDING = r"(?:[,，、(\[\\]|(?i:\b(?:such that|and|or|of|the)))$"

#: Characters that no question is made of: control, format, private-use and unassigned ones, pictures and ornaments, and
#: accents that belong to no letter. White space and the joiners that Persian and Indic scripts need are none of them.
UNWANTED = r"[[\p{Cc}\p{Cf}\p{Co}\p{Cn}\p{So}\x{FFFD}\x{0300}-\x{036F}]--[\s\x{200C}\x{200D}]]"
