// Fuzzes recipes: any text gives passes that fit together and a record that reads back, or an
// error.
#include "pipeline/recipe.h"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace edgewise;
  const auto recipe = ParseRecipe(std::string_view(reinterpret_cast<const char*>(data), size),
                                  "folder/recipe.yaml");
  if (!recipe) {
    if (recipe.error().message.empty()) std::abort();
    return 0;
  }
  if (recipe->passes.empty()) std::abort();
  const auto again = RecipeFromJson(recipe->json, "folder", "record");
  if (!again || again->json.Dump() != recipe->json.Dump()) std::abort();
  return 0;
}
