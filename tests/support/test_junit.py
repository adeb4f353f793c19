"""The summary of a comparison from its report in JUnit's format."""
from support import junit

REPORT = '''<testsuites><testsuite>
<testcase name="test_preloaded[test_gc-3.15.2-path]"><properties>
  <property name="seconds" value="8"/><property name="tests" value="57"/>
  <property name="skipped" value="2"/><property name="failing" value="a.b; a.c"/>
</properties></testcase>
<testcase name="test_preloaded[test.test_io.test_file-3.15.2-path]"><properties>
  <property name="seconds" value="4"/><property name="tests" value="3"/>
  <property name="known" value="x: ok without, FAIL with the library (why)"/>
</properties><failure message="m">y: ok without, FAIL with the library</failure></testcase>
<testcase name="test_preloaded[test_tk-3.15.2-path]"><properties>
  <property name="seconds" value="1"/><property name="tests" value="0"/>
</properties><skipped message="no test ran: skipped: no tkinter">place</skipped></testcase>
</testsuite></testsuites>'''


def test_counts_and_names(tmp_path):
    path = tmp_path / 'report.xml'
    path.write_text(REPORT)
    found = junit.read(path)
    assert (found.tests, found.skipped, found.seconds, found.modules) == (60, 2, 13, 1)
    assert found.notes['failing'] == ['test_gc: a.b', 'test_gc: a.c']
    assert found.differences == ['test.test_io.test_file: y: ok without, FAIL with the library']
    assert found.idle == ['test_tk: no test ran: skipped: no tkinter']
    assert found.amount == ('60 tests, 1 modules: 2 tests fail on both sides, 2 tests skipped on'
                            ' both sides, 1 modules run no test, 1 tests differ as expected')
    for line in ('difference: test.test_io.test_file: y: ', 'no test: test_tk: ',
                 'known difference: test.test_io.test_file: x: '):
        assert f'\n{line}' in found.summary
