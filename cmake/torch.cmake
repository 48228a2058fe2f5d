# libtorch (Debian's libtorch-dev) is the referee of training in tests/ and its peer in bench/, and nothing of the product needs it.
# Its own CMake package asks for the parts of CUDA and Caffe2 that it was built with, so the libraries are named here.
# The sanitizer and cross builds leave it out: only gcc's build here compares with it.
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND NOT CMAKE_CROSSCOMPILING)
  find_path(TORCH_INCLUDE torch/torch.h PATH_SUFFIXES torch/csrc/api/include)
  find_library(TORCH_LIBRARY torch)
  find_library(TORCH_CPU_LIBRARY torch_cpu)
  find_library(C10_LIBRARY c10)
endif()
if(TORCH_INCLUDE AND TORCH_LIBRARY AND TORCH_CPU_LIBRARY AND C10_LIBRARY)
  add_library(edgewise_torch INTERFACE)
  target_include_directories(edgewise_torch SYSTEM INTERFACE ${TORCH_INCLUDE})
  target_link_libraries(edgewise_torch INTERFACE ${TORCH_LIBRARY} ${TORCH_CPU_LIBRARY} ${C10_LIBRARY})
endif()
