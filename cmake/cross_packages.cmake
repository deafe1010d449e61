# Stand-ins for the packages whose libraries a cross compiler cannot link: they are the host's. Their
# headers and sources serve any machine, and Debian's cross compilers read /usr/include.
add_library(fmt::fmt INTERFACE IMPORTED)
set_target_properties(fmt::fmt PROPERTIES INTERFACE_COMPILE_DEFINITIONS FMT_HEADER_ONLY)

set(googletest /usr/src/googletest/googletest)  # of the package googletest
add_library(gtest_main STATIC EXCLUDE_FROM_ALL ${googletest}/src/gtest-all.cc ${googletest}/src/gtest_main.cc)
target_include_directories(gtest_main SYSTEM PUBLIC ${googletest}/include PRIVATE ${googletest})
add_library(GTest::gtest_main ALIAS gtest_main)
