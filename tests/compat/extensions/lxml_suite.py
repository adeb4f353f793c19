"""lxml: trees built, walked, changed, sorted out and dropped."""

import gc
import io
import threading

from lxml import etree, html, objectify


def document(count):
    """A tree with text, tails, attributes, namespaces, comments."""
    root = etree.Element("{urn:a}root", nsmap={"a": "urn:a"})
    for number in range(count):
        row = etree.SubElement(root, "row", id=str(number), long="x" * (number % 700))
        row.text = "\u00e9" * (number % 40)
        row.tail = "\n"
        row.append(etree.Comment(" %d " % number))
    return root


def test_round_trip():
    text = etree.tostring(document(3000))
    assert etree.tostring(etree.fromstring(text)) == text
    assert etree.tostring(etree.fromstring(text), method="c14n") == \
        etree.tostring(document(3000), method="c14n")


def test_proxies_come_and_go():
    root = document(2000)
    for _ in range(5):
        kept = [row for row in root.iter("row") if int(row.get("id")) % 3 == 0]
        gc.collect()
        assert len(kept) == 667
    for row in list(root)[::2]:
        root.remove(row)
    assert len(root) == 1000


def test_moves_between_documents():
    rows = list(document(500))
    other = etree.Element("other")
    other.extend(rows)
    del rows
    gc.collect()
    assert [row.get("id") for row in other] == [str(number) for number in range(500)]


def test_xpath_and_xslt():
    root = document(1000)
    assert root.xpath("count(//row[@id > 900])") == 99.0
    assert len(root.xpath("//row/@long")) == 1000
    sheet = etree.XSLT(etree.XML(
        '<xsl:stylesheet version="1.0" xmlns:xsl="http://www.w3.org/1999/XSL/Transform">'
        '<xsl:template match="/"><out><xsl:for-each select="//row">'
        '<n><xsl:value-of select="@id"/></n></xsl:for-each></out></xsl:template>'
        '</xsl:stylesheet>'))
    for _ in range(20):
        assert len(sheet(root).getroot()) == 1000


def test_iterparse_and_errors():
    text = etree.tostring(document(3000))
    seen = 0
    for _, element in etree.iterparse(io.BytesIO(text), tag="row"):
        seen += 1
        element.clear()
    assert seen == 3000
    for cut in range(1, len(text), len(text) // 50):
        try:
            etree.fromstring(text[:cut])
        except etree.XMLSyntaxError as error:
            assert len(error.error_log) > 0


def test_html_and_objectify():
    page = html.fromstring("<p>one<br>two<a href='x'>%s</a>" % ("three" * 300))
    assert page.xpath("//a/@href") == ["x"]
    page.make_links_absolute("http://host/")
    tree = objectify.fromstring("<r>" + "<n>7</n>" * 2000 + "</r>")
    assert sum(int(number) for number in tree.n) == 14000


def test_threads():
    sizes = []

    def work():
        for count in range(100, 160):
            sizes.append(len(etree.fromstring(etree.tostring(document(count)))))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(sizes) == sorted(list(range(100, 160)) * 4)
