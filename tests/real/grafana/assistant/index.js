exports.OpenAssistantButton = () => null;
exports.createAssistantContextItem = () => null;
