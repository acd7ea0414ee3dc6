// Routes that need no answer of the model.
#pragma once
#include "launch/serve/serving.h"

namespace drover {

HttpResponse health(Serving& serving, const HttpRequest& request);
HttpResponse metrics(Serving& serving, const HttpRequest& request);
HttpResponse version(Serving& serving, const HttpRequest& request);
HttpResponse list_models(Serving& serving, const HttpRequest& request);
HttpResponse one_model(Serving& serving, const HttpRequest& request);  // whose id ends the path
HttpResponse tokenizer_info(Serving& serving, const HttpRequest& request);
HttpResponse openapi(Serving& serving, const HttpRequest& request);
HttpResponse tokenize(Serving& serving, const HttpRequest& request);
HttpResponse detokenize(Serving& serving, const HttpRequest& request);

}  // namespace drover
