// Which torch the binary is for, to be read from the bytes of the file: the package looks before
// it loads it (ganloss_fast/extension.py), because loading it beside another torch can crash.
namespace ganloss {

#define GANLOSS_TEXT_OF(tokens) #tokens
#define GANLOSS_TEXT(macro) GANLOSS_TEXT_OF(macro)

[[gnu::used]] const char kTorch[] = "GANLOSS_FAST_TORCH=" GANLOSS_TEXT(GANLOSS_FAST_TORCH);

}  // namespace ganloss
