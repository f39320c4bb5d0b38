// Its default export is one level too deep for a bundler that follows Node's rules of CommonJS.
export { Scrollbars as default } from "./node_modules/react-custom-scrollbars-2/lib/index.js";
