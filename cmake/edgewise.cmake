# The three building blocks of the tree: a layer, its tests, a fuzz target.

add_library(edgewise_flags INTERFACE)
target_compile_options(edgewise_flags INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-sign-conversion -Werror
  -fno-math-errno -fno-trapping-math
  # gcc 12 reports both inside std::string and std::variant for correct code (GCC bug 105651 and its kin);
  # clang and the sanitizer build still look.
  $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict -Wno-maybe-uninitialized>)
target_include_directories(edgewise_flags INTERFACE ${CMAKE_SOURCE_DIR}/src)

# ew_layer(name SOURCES a.cc ... [LAYERS base quant ...] [LIBRARIES ...]) makes the static library edgewise_<name>.
function(ew_layer name)
  cmake_parse_arguments(arg "" "" "SOURCES;LAYERS;LIBRARIES" ${ARGN})
  add_library(edgewise_${name} STATIC ${arg_SOURCES})
  list(TRANSFORM arg_LAYERS PREPEND edgewise_)
  target_link_libraries(edgewise_${name} PUBLIC ${arg_LAYERS} PRIVATE edgewise_flags ${arg_LIBRARIES})
  target_include_directories(edgewise_${name} PUBLIC ${CMAKE_SOURCE_DIR}/src)
endfunction()

# ew_layer_tests(name a_test.cc ... ) makes one program of a layer's tests and registers each file as a ctest
# named <name>/<file>. Extra link libraries go in EW_TEST_LIBRARIES before the call.
function(ew_layer_tests name)
  if(NOT EDGEWISE_TESTS)
    return()
  endif()
  add_executable(edgewise_${name}_test ${CMAKE_SOURCE_DIR}/tests/doctest_main.cc ${ARGN})
  target_link_libraries(edgewise_${name}_test PRIVATE edgewise_${name} edgewise_flags ${EW_TEST_LIBRARIES})
  target_include_directories(edgewise_${name}_test PRIVATE ${CMAKE_SOURCE_DIR})
  target_compile_definitions(edgewise_${name}_test PRIVATE EDGEWISE_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
  target_compile_options(edgewise_${name}_test PRIVATE -O1)  # their compilation is most of what they take
  foreach(file ${ARGN})
    get_filename_component(stem ${file} NAME_WE)
    string(REGEX REPLACE "_test$" "" label ${stem})
    add_test(NAME ${name}/${label} COMMAND edgewise_${name}_test --source-file=*/${file})
    set_tests_properties(${name}/${label} PROPERTIES LABELS fast TIMEOUT 900)
  endforeach()
endfunction()

# ew_fuzz(name LAYERS ...) makes fuzz_<name> from fuzz/<name>.cc; its seeds lie in fuzz/corpus/<name>.
function(ew_fuzz name)
  add_executable(fuzz_${name} ${CMAKE_SOURCE_DIR}/fuzz/${name}.cc)
  list(TRANSFORM ARGN PREPEND edgewise_)
  target_link_libraries(fuzz_${name} PRIVATE ${ARGN} edgewise_flags)
  target_link_options(fuzz_${name} PRIVATE -fsanitize=fuzzer)
endfunction()
