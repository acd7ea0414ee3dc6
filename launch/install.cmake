# `cmake --install BUILD --prefix PREFIX`: a tree that can be moved. launch/run finds the program from its own place in
# it, the program finds its CUDA backend in ../lib, and that finds CUDA's libraries next to itself or where they were
# when it was built.
set_target_properties(drover PROPERTIES INSTALL_RPATH_USE_LINK_PATH ON)
install(TARGETS drover RUNTIME DESTINATION bin)
if(DROVER_HAS_CUDA)
  # CMake leaves out of the link path what is inside the source tree, where launch/cuda-toolkit puts libraries.
  set(FOLDERS "$ORIGIN")
  get_target_property(LIBRARIES drover_cuda_libraries INTERFACE_LINK_LIBRARIES)
  foreach(LIBRARY ${LIBRARIES})
    if(IS_ABSOLUTE ${LIBRARY})
      get_filename_component(FOLDER ${LIBRARY} DIRECTORY)
      list(APPEND FOLDERS ${FOLDER})
    endif()
  endforeach()
  list(REMOVE_DUPLICATES FOLDERS)
  set_target_properties(drover_cuda_module PROPERTIES INSTALL_RPATH "${FOLDERS}" INSTALL_RPATH_USE_LINK_PATH ON)
  install(TARGETS drover_cuda_module LIBRARY DESTINATION lib)
endif()
install(PROGRAMS launch/run launch/rank-output DESTINATION share/drover/launch)
install(DIRECTORY launch/cluster DESTINATION share/drover/launch)
install(DIRECTORY configs/recipes configs/planning DESTINATION share/drover)
# The README and the pages that it leads to, in their folders.
install(FILES LICENSE DESTINATION share/doc/drover)
file(GLOB PAGES CONFIGURE_DEPENDS RELATIVE ${CMAKE_SOURCE_DIR} README.md */README.md */*/README.md .github/*.md
     .github/*.svg)
foreach(PAGE ${PAGES})
  get_filename_component(FOLDER ${PAGE} DIRECTORY)
  install(FILES ${PAGE} DESTINATION share/doc/drover/${FOLDER})
endforeach()
