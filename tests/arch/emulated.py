"""What cannot pass under qemu's emulation of a process, with the reasons. For the C tests the list
is c_tests/emulated.txt."""

UNIT_TESTS = dict.fromkeys((
    'inspect::objects::tests::an_object_is_where_its_type_says',
    'inspect::objects::tests::no_more_types_are_kept_than_there_is_room_for',
    'inspect::objects::tests::what_has_no_type_of_types_is_none'),
    'qemu has no process_vm_readv, by which types are read') | {
    'pool::tests::pages_that_the_kernel_keeps_stay_resident':
        'qemu answers madvise of addresses without a mapping with success',
    'os::shared::tests::two_mappings_show_the_same_bytes_until_they_are_emptied':
        "qemu ignores MADV_REMOVE, which returns a file's memory",
}

RESIDENT = "the resident memory of the process has qemu's own in it"
FOREIGN = "programs of this machine, whose loader refuses aarch64's library with a line"
LIMITS = 'qemu does not apply RLIMIT_AS and RLIMIT_DATA to the program'
TRACED = "strace sees qemu's system calls"
PRIVILEGES = 'in the namespace there is no other user, and no setuid bit for qemu'
SIGNALS = "/proc has qemu's signal handlers"

# By the beginning of a check's name, below tests/preload/; a file's name leaves all of it out.
PRELOAD = {
    'test_address_space.py::test_programs_run_under_a_limit': FOREIGN,
    'test_coexistence.py::test_address_space': LIMITS,
    'test_coexistence.py::test_data': LIMITS,
    'test_coexistence.py::test_interpreters_with_a_gil_each_get_lanes':
        'threads take turns in emulation, and their locks are hardly ever contended',
    'test_coexistence.py::test_what_small_objects_held_serves_a_large_block': LIMITS,
    'test_config.py::test_default_rises_with_the_program': RESIDENT,
    'test_debug.py::test_debug_build': 'the debug build is of this machine',
    'test_fake_hosts.py::test_huge_pages_as_cpython_requests_them': TRACED,
    'test_fork_warnings.py::test_fork_with_the_usual_interval': FOREIGN,
    'test_fork_warnings.py::test_subprocess': FOREIGN,
    'test_guard.py::test_fork_while_threads_are_guarded':
        'each second block is guarded, which takes longer than the limit; it ends after 72 s',
    'test_guard.py::test_off_there_is_no_handler': SIGNALS,
    'test_inert.py::test_compiling_a_program': FOREIGN,
    'test_inert.py::test_no_mapping_and_no_thread': 'qemu has a thread of its own',
    'test_inert.py::test_same_output_and_status': FOREIGN,
    'test_limits.py::test_beyond_the_hard_limit_there_is_memory_error': RESIDENT,
    'test_limits.py::test_limit_of_the_cgroup': RESIDENT,
    'test_memory.py::test_huge_pages_when_asked_for': "qemu's /proc has no huge pages",
    'test_privileges.py::test_a_user_who_may_start_no_thread': PRIVILEGES,
    'test_privileges.py::test_setuid': PRIVILEGES,
    'test_processes.py::test_shells_between': FOREIGN,
    'test_reports.py::test_files_of_other_users': PRIVILEGES,
    'test_reports.py::test_root_and': PRIVILEGES,
    'test_reports.py::test_signals_are_restored': "it runs this machine's python3",
    'test_sandbox.py': TRACED,
    'test_several.py': 'the other interpreters are of this machine',
    'test_tools.py': 'Valgrind and sanitizers run programs of their own machine',
}
